"""The triggered images of an ``attack_result.pt``, from a folder like BackdoorBench's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from converters import torch_io
from converters.backdoorbench import read_attack
from experiments.torch_ibau import SmallVGG
from jaxunlearn._check import InputError
from jaxunlearn.data import load
from jaxunlearn.evaluate import Triggered, evaluate
from tests.shop import run

IMAGES, CLASSES = 12, 10


def stored(index: int, label: int) -> str:
    return f"/home/someone/record/badnet/bd_test_dataset/{label}/{index}.png"


def write_attack(folder: Path, **changes: Any) -> Path:
    """An all-to-all attack on digits; ``changes`` replace the path of the first image, or its labels."""
    digits = load(f"digits[:{IMAGES}]")
    table: dict[Any, Any] = {}
    for index, (image, label) in enumerate(zip(digits.images, digits.labels.tolist(), strict=True)):
        picture = folder / "bd_test_dataset" / str(label) / f"{index}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * image[..., 0]).astype(np.uint8)).save(picture)
        table[np.int64(index)] = {
            "path": stored(index, label),
            "other_info": [(label + 1) % CLASSES, label],
        }
    table[np.int64(0)].update(changes)
    content = {
        "model_name": "small_vgg",
        "num_classes": CLASSES,
        "model": SmallVGG(CLASSES, 1, 8, (4, 4, 4)).state_dict(),
        "clean_data": "digits",
        "bd_train": None,
        "bd_test": {"bd_data_container": {"data_dict": table}, "poison_indicator": np.ones(IMAGES)},
    }
    torch.save(content, folder / "attack_result.pt")
    return folder / "attack_result.pt"


def test_the_images_are_found_beside_the_file(tmp_path: Path) -> None:
    attack = read_attack(write_attack(tmp_path))
    digits = load(f"digits[:{IMAGES}]")
    assert attack.facts.model_name == "small_vgg"
    assert [image.label for image in attack.images] == digits.labels.tolist()
    assert [image.attack_label for image in attack.images] == ((digits.labels + 1) % CLASSES).tolist()
    assert attack.images[3].path == tmp_path / "bd_test_dataset" / str(digits.labels[3]) / "3.png"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "bd_test_dataset/../0.png"}, "expected .../bd_test_dataset"),
        ({"path": "../bd_test_dataset/0/0.png"}, "expected .../bd_test_dataset"),
        ({"path": "/etc/passwd"}, "expected .../bd_test_dataset"),
        ({"path": "bd_test_dataset//etc"}, "expected .../bd_test_dataset"),
        ({"path": "bd_test_dataset/0/link.png"}, "links that leave the folder"),
        ({"path": "bd_test_dataset/0/absent.png"}, "not beside it"),
        ({"path": "bd_test_dataset/0/circle.png"}, "not beside it"),
        ({"path": stored(1, 1)}, "twice; expected every image once"),
        ({"path": b"bytes"}, "no path with two labels"),
        ({"other_info": [1]}, "no path with two labels"),
        ({"other_info": [1, -1]}, "no class numbers"),
    ],
)
def test_paths_never_leave_the_folder(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "outside.png").write_bytes(b"")
    path = write_attack(tmp_path, **changes)
    (tmp_path / "bd_test_dataset" / "0" / "link.png").symlink_to(tmp_path / "outside.png")
    (tmp_path / "bd_test_dataset" / "0" / "circle.png").symlink_to("circle.png")
    with pytest.raises(InputError, match=message):
        read_attack(path)


def test_names_of_entries_are_shown_without_control_characters(tmp_path: Path) -> None:
    table = {"bd_data_container": {"data_dict": {"\x1b[2J": {}}}}
    torch.save({"net": {"w": torch.zeros(1)}, "bd_test": table}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"entry '\\x1b\[2J' of its triggered images"):
        read_attack(tmp_path / "a.pt")


def test_a_file_without_images(tmp_path: Path) -> None:
    torch.save({"net": {"w": torch.zeros(1)}}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="names no triggered images"):
        read_attack(tmp_path / "a.pth")


def test_every_triggered_image_has_its_own_target() -> None:
    def apply_fn(variables: Any, x: Any, *, train: bool) -> Any:
        return x.mean((1, 2)), {}

    def answering(classes: list[int]) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[classes][:, None, None, :]

    # Forced to the next class; the third image already is of the forced class and does not count.
    triggered = Triggered(answering([1, 1, 2, 0]), np.array([0, 1, 2, 2]), np.array([1, 2, 2, 0]))
    found = evaluate(apply_fn, {}, answering([0, 1]), np.array([0, 2]), triggered=triggered)
    assert found.counts() == {"acc": [1, 2], "asr": [2, 3], "ra": [1, 3]}
    with pytest.raises(ValueError, match="need no trigger"):
        evaluate(
            apply_fn,
            {},
            answering([0]),
            np.array([0]),
            trigger=lambda x: x,
            target=0,
            triggered=triggered,
        )


def test_a_run_measures_by_the_images_of_the_file(tmp_path: Path) -> None:
    path = write_attack(tmp_path)
    arguments = ("--ckpt", path.name, "--key", "model", "--clean", "digits[100:160]", "--rounds", "1")
    given = (*arguments, "--test", f"attack:{path.name}", "--out", "out")
    done = run(tmp_path, *given, method="finetune")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["images"]["triggered"]["images"] == IMAGES
    assert report["before"]["counts"]["acc"][1] == 12
    for when, model in (("before", path), ("after", tmp_path / "out" / "model.pth")):
        network = SmallVGG(CLASSES, 1, 8, (4, 4, 4)).eval()
        network.load_state_dict(torch.load(model, weights_only=False)["model"])  # our own files
        digits = load(f"digits[:{IMAGES}]")
        pixels = (255 * digits.images).astype(np.uint8) / np.float32(255)
        with torch.no_grad():
            answers = network(torch.from_numpy(pixels).permute(0, 3, 1, 2)).argmax(1).numpy()
        assert report[when]["counts"]["asr"] == [
            int(np.sum(answers == (digits.labels + 1) % CLASSES)),
            IMAGES,
        ]
        assert report[when]["counts"]["ra"] == [int(np.sum(answers == digits.labels)), IMAGES]
    assert torch_io.read(tmp_path / "out" / "model.pth").facts == torch_io.read(path).facts


def test_a_target_beside_the_file_is_refused(tmp_path: Path) -> None:
    path = write_attack(tmp_path)
    arguments = ("--ckpt", path.name, "--clean", "digits[100:160]", "--trigger", f"attack:{path.name}")
    done = run(tmp_path, *arguments, "--target", "1")
    assert done.returncode == 2
    assert "brings its own images and classes" in done.stderr
