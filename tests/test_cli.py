"""The command line as people use it: as a process of its own, from another folder."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from PIL import Image

from converters import convert, torch_io
from experiments.torch_ibau import SmallVGG
from jaxunlearn.data import load
from jaxunlearn.ibau.__main__ import main as ibau_main
from jaxunlearn.models import small_vgg

WIDTHS = (16, 32, 64)


def command(*arguments: object, method: str = "ibau") -> list[str]:
    return [sys.executable, "-m", f"jaxunlearn.{method}", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}


def run(folder: Path, *arguments: object, method: str = "ibau") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, method=method),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def write_digits(path: Path, images: Any = None, labels: Any = None) -> str:
    digits = load("digits[:60]")
    x = (digits.images * 255).astype(np.uint8) if images is None else images
    np.savez(path, x=x, y=digits.labels if labels is None else labels)
    return f"npz:{path.name}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good checkpoint, good images, and everything that can be wrong."""
    folder = tmp_path_factory.mktemp("shop")
    spec = small_vgg(10, (8, 8, 1), WIDTHS)
    arrays = convert.to_torch(spec, jax.tree.map(np.asarray, spec.init(jax.random.key(0))))
    (folder / "good.pth").write_bytes(torch_io.new_state_dict_bytes(arrays))
    write_digits(folder / "digits.npz")

    (folder / "text.pth").write_text("these are no weights")
    (folder / "empty.pth").write_bytes(b"")
    (folder / "half.pth").write_bytes((folder / "good.pth").read_bytes()[:5000])

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {folder}/ran",)

    torch.save({"net": Evil()}, folder / "evil.pth")
    torch.save({"net": Evil()}, folder / "evil-old.pth", _use_new_zipfile_serialization=False)
    torch.save(SmallVGG(10, 1, 8, WIDTHS), folder / "module.pth")
    torch.save({"net": {"fc.weight": torch.zeros(2, 2)}, "epoch": 3}, folder / "other.pth")
    torch.save({"epoch": 3}, folder / "nothing.pth")
    torch.save([1, 2], folder / "list.pth")
    wrong = {**arrays, "features.3.weight": np.zeros((16, 15, 3, 3), np.float32)}
    (folder / "shapes.pth").write_bytes(torch_io.new_state_dict_bytes(wrong))
    holed = {**arrays, "features.8.bias": np.full(32, np.nan, np.float32)}
    (folder / "nan.pth").write_bytes(torch_io.new_state_dict_bytes(holed))

    write_digits(folder / "large.npz", np.zeros((60, 32, 32, 1), np.uint8))
    write_digits(folder / "colour.npz", np.zeros((60, 8, 8, 3), np.uint8))
    write_digits(folder / "labels.npz", labels=np.arange(60))
    write_digits(folder / "negative.npz", labels=np.arange(60) % 10 - 1)
    write_digits(folder / "same.npz", labels=np.full(60, 4))
    write_digits(folder / "floats.npz", np.zeros((60, 8, 8, 1), np.float32))
    np.savez(folder / "names.npz", pictures=np.zeros(3))
    np.savez(folder / "objects.npz", x=np.array([{}], object), y=np.zeros(1, int))
    (folder / "broken.npz").write_bytes(b"PK no archive")
    (folder / "broken.parquet").write_bytes(b"PAR1 no table")

    (folder / "empty").mkdir()
    (folder / "oneclass" / "cats").mkdir(parents=True)
    for tree, names in (("pictures", ("3", "7")), ("named", ("cats", "dogs"))):
        for name in names:
            (folder / tree / name).mkdir(parents=True)
            for number in range(15):
                Image.new("L", (8, 8), number).save(folder / tree / name / f"{number}.png")
    (folder / "names.txt").write_text("cats\nhorses\n")
    (folder / "pictures" / "7" / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    Image.new("RGB", (32, 32)).save(folder / "trigger.png")
    (folder / "file").write_text("")
    for name, content in (("finished", "report.json"), ("interrupted", "state.npz")):
        (folder / name).mkdir()
        (folder / name / content).write_text("{}")
    return folder


GOOD = ("--ckpt", "good.pth", "--clean", "npz:digits.npz")
PATCH = ("--trigger", "patch:size=2,offset=0")

BAD_INPUTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "nothing given": ((), ("--ckpt FILE and --clean SPEC are needed", "--demo")),
    "no such file": (("--ckpt", "absent.pth", "--clean", "digits"), ("no file absent.pth",)),
    "a folder": (("--ckpt", "empty", "--clean", "digits"), ("empty is not a file",)),
    "text": (
        ("--ckpt", "text.pth", "--clean", "digits"),
        ("text.pth cannot be read as a PyTorch checkpoint",),
    ),
    "empty file": (("--ckpt", "empty.pth", "--clean", "digits"), ("empty.pth cannot be read",)),
    "cut off": (("--ckpt", "half.pth", "--clean", "digits"), ("half.pth cannot be read",)),
    "runs code": (("--ckpt", "evil.pth", "--clean", "digits"), ("asks to run", "system", "nothing was run")),
    "runs code, old format": (("--ckpt", "evil-old.pth", "--clean", "digits"), ("asks to run", "system")),
    "whole module": (
        ("--ckpt", "module.pth", "--clean", "digits"),
        ("whole pickled module", "SmallVGG", "state_dict"),
    ),
    "unknown network": (
        ("--ckpt", "other.pth", "--clean", "digits"),
        ("no known architecture", "the nearest is resnet18", "- layer1.0.bn1.running_mean"),
    ),
    "no state dict": (("--ckpt", "nothing.pth", "--clean", "digits"), ("holds no state dict", "'epoch'")),
    "a list": (("--ckpt", "list.pth", "--clean", "digits"), ("holds a list",)),
    "wrong shapes": (
        ("--ckpt", "shapes.pth", "--clean", "digits"),
        (
            "do not have its shapes",
            "+ features.3.weight (16, 15, 3, 3)",
            "- features.3.weight (16, 16, 3, 3)",
        ),
    ),
    "NaN in the weights": (("--ckpt", "nan.pth", "--clean", "digits"), ("features.8.bias holds NaN",)),
    "unknown source": (("--ckpt", "good.pth", "--clean", "ftp:x"), ("'ftp:x' names no images", "folder:DIR")),
    "absent array file": (("--ckpt", "good.pth", "--clean", "npz:absent.npz"), ("no file absent.npz",)),
    "broken array file": (
        ("--ckpt", "good.pth", "--clean", "npz:broken.npz"),
        ("broken.npz cannot be read",),
    ),
    "other arrays": (
        ("--ckpt", "good.pth", "--clean", "npz:names.npz"),
        ("names.npz holds pictures", "x (uint8"),
    ),
    "pickled arrays": (("--ckpt", "good.pth", "--clean", "npz:objects.npz"), ("without pickle",)),
    "float images": (("--ckpt", "good.pth", "--clean", "npz:floats.npz"), ("x is float32", "uint8")),
    "broken table": (
        ("--ckpt", "good.pth", "--clean", "parquet:broken.parquet"),
        ("cannot be read as Parquet",),
    ),
    "unprepared tfds": (
        ("--ckpt", "good.pth", "--clean", "tfds:no_such_set"),
        ("cannot be opened", "prepare"),
    ),
    "an empty slice": (("--ckpt", "good.pth", "--clean", "digits[5000:]"), ("holds no images",)),
    "image size": (("--ckpt", "good.pth", "--clean", "npz:large.npz"), ("are 32x32x1", "takes 8x8x1")),
    "image channels": (("--ckpt", "good.pth", "--clean", "npz:colour.npz"), ("are 8x8x3", "takes 8x8x1")),
    "labels too high": (
        ("--ckpt", "good.pth", "--clean", "npz:labels.npz"),
        ("from 0 to 59", "classes 0 to 9"),
    ),
    "labels negative": (("--ckpt", "good.pth", "--clean", "npz:negative.npz"), ("from -1 to 8",)),
    "one class": (("--ckpt", "good.pth", "--clean", "npz:same.npz"), ("are of class 4", "several classes")),
    "no folder": (("--ckpt", "good.pth", "--clean", "folder:absent"), ("no folder absent",)),
    "empty folder": (("--ckpt", "good.pth", "--clean", "folder:empty"), ("empty holds no sub-folder",)),
    "one-class folder": (
        ("--ckpt", "good.pth", "--clean", "folder:oneclass"),
        ("only the sub-folder 'cats'", "several classes"),
    ),
    "corrupt image": (("--ckpt", "good.pth", "--clean", "folder:pictures"), ("7/corrupt.png is damaged",)),
    "names of some classes": (
        ("--ckpt", "good.pth", "--clean", "folder:named"),
        ("2 sub-folders and the model has 10 classes", "folder:named,classes=FILE"),
    ),
    "a name without number": (
        ("--ckpt", "good.pth", "--clean", "folder:named,classes=names.txt"),
        ("dogs of named are missing from the given classes",),
    ),
    "cleaned and judged with the same": (
        (*GOOD, "--test", "npz:digits.npz[40:]"),
        (
            "20 of the 60 images of npz:digits.npz to",
            "digits.npz row 40",
            "leave --test away",
            "--leave-out-shared",
        ),
    ),
    "another size than the model's": (
        (*GOOD, "--size", "16"),
        ("images of 8x8 only", "leave --size 16 away"),
    ),
    "too few to clean with": (
        ("--ckpt", "good.pth", "--clean", "digits[:9]", "--test", "digits[9:99]"),
        ("leaves 9 images to clean with", "at least 10"),
    ),
    "too few to judge by": (
        (*GOOD, "--test", "digits[:9]"),
        ("leaves 9 images to judge by", "at least 10"),
    ),
    "too few held back": (("--ckpt", "good.pth", "--clean", "digits[:30]"), ("6 images", "to judge by")),
    "target outside": ((*GOOD, *PATCH, "--target", "10"), ("target 10", "classes 0 to 9")),
    "trigger without target": ((*GOOD, *PATCH), ("--trigger and --target belong together",)),
    "unknown trigger": (
        (*GOOD, "--trigger", "spell", "--target", "1"),
        ("'spell' names no trigger", "patch:"),
    ),
    "trigger too large": (
        (*GOOD, "--trigger", "patch:size=9", "--target", "1"),
        ("patch:size=9 does not fit", "8x8x1"),
    ),
    "trigger of another size": (
        (*GOOD, "--trigger", "image:trigger.png", "--target", "1"),
        ("trigger.png does not fit", "8x8x1"),
    ),
    "no trigger picture": (
        (*GOOD, "--trigger", "image:absent.png", "--target", "1"),
        ("no picture absent.png",),
    ),
    "unknown setting": ((*GOOD, "--set", "speed=3"), ("no setting speed", "learning_rate")),
    "setting of another type": ((*GOOD, "--set", "damping=much"), ("'much' is not a float",)),
    "setting out of range": ((*GOOD, "--set", "damping=-1"), ("damping=-1.0", "at least 0")),
    "unknown normalisation": (
        (*GOOD, "--normalize", "mnist"),
        ("'mnist' is no normalisation", "cifar10", "MEAN/STD"),
    ),
    "normalisation of other channels": (
        (*GOOD, "--normalize", "gtsrb"),
        ("gtsrb is one of 3 channels", "images of 1"),
    ),
    "swapped channels of grey images": ((*GOOD, "--channels", "bgr"), ("leave --channels bgr away",)),
    "no rounds": ((*GOOD, "--rounds", "0"), ("--rounds", "at least 1")),
    "unknown preset": ((*GOOD, "--preset", "fancy"), ("fancy", "reference")),
    "output is a file": ((*GOOD, "--out", "file"), ("file is a file",)),
    "output below a file": ((*GOOD, "--out", "file/below"), ("file/below cannot be written",)),
    "output not writable": ((*GOOD, "--out", "/proc/jaxunlearn"), ("cannot be written", "--out")),
    "output holds a run": ((*GOOD, "--out", "finished"), ("holds a finished run", "--force")),
    "output holds half a run": ((*GOOD, "--out", "interrupted"), ("interrupted run", "--resume", "--force")),
    "nothing to resume": ((*GOOD, "--resume"), ("no interrupted run", "leave --resume away")),
    "broken state": ((*GOOD, "--out", "interrupted", "--resume"), ("state.npz is damaged", "--force")),
    "demo with files": (("--demo", "--clean", "digits"), ("leave --clean away",)),
}


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input(
    shop: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, for speed."""
    arguments, expected = BAD_INPUTS[name]
    before = listing(shop)
    monkeypatch.chdir(shop)
    monkeypatch.setattr("jaxunlearn.cli.signal.signal", lambda *_: None)
    monkeypatch.setattr("jaxunlearn._runtime.keep_compilations", lambda: None)
    try:
        code = ibau_main(list(arguments))
    except SystemExit as ended:  # argparse's way
        code = ended.code
    shown = capsys.readouterr()
    assert code == 2, shown.err
    for part in expected:
        assert part in shown.err
    errors = [line for line in shown.err.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert listing(shop) == before  # nothing written, and hostile pickles not run


@pytest.mark.parametrize("name", ["runs code", "corrupt image", "unknown preset"])
def test_bad_input_to_the_program(shop: Path, name: str) -> None:
    arguments, expected = BAD_INPUTS[name]
    done = run(shop, *arguments)
    assert done.returncode == 2, done.stderr
    assert all(part in done.stderr for part in expected)
    assert "Traceback" not in done.stderr + done.stdout


@pytest.fixture(scope="module")
def finished(victim: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One complete run with everything given."""
    folder = victim.parent
    arguments = ("--ckpt", victim, "--clean", "digits[1000:1300]", "--test", "digits[1300:]", "--out", "done")
    return folder / "done", run(folder, *arguments, *PATCH, "--target", 0, "--reactivate", 5, 20)


def test_a_run_writes_everything(finished: tuple[Path, Any]) -> None:
    out, done = finished
    assert done.returncode == 0, done.stderr
    names = {path.name for path in out.iterdir()}
    assert names == {"model.pth", "model.safetensors", "report.json", "curves.png", "perturbation.png"}
    for name in ("curves.png", "perturbation.png"):
        with Image.open(out / name) as picture:
            assert picture.width > 300
            assert len(set(picture.convert("L").tobytes())) > 20


def test_the_report_is_complete_and_true(finished: tuple[Path, Any], victim: Path) -> None:
    out, _ = finished
    report = json.loads((out / "report.json").read_text())
    assert set(report) >= {
        *("before", "after", "der", "rounds", "method", "preset", "config", "seed", "architecture"),
        *("input_sha256", "output_sha256", "seconds", "device", "versions"),
    }
    assert report["input_sha256"] == torch_io.hash_file(victim)
    assert report["output_sha256"] == torch_io.hash_file(out / "model.pth")
    assert set(report["seconds"]) == {"load", "compile", "unlearn", "evaluate"}
    assert all(seconds > 0 for seconds in report["seconds"].values())
    assert len(report["rounds"]) == report["config"]["rounds"]
    assert (report["preprocessing"]["name"], report["preprocessing"]["chosen"]) == ("none", "by accuracy")
    assert report["warnings"] == []
    test = load("digits[1300:]")
    for when, path in (("before", victim), ("after", out / "model.pth")):
        counts = torch_counts(path, test)
        for name, (hits, total) in counts.items():
            found_hits, found_total = report[when]["counts"][name]
            assert total == found_total
            assert abs(hits - found_hits) <= 1, name  # two backends may round one logit apart
            assert report[when][name] == found_hits / found_total


def torch_counts(path: Path, test: Any) -> dict[str, tuple[int, int]]:
    """ACC, ASR and RA by PyTorch alone."""
    model = SmallVGG(10, 1, 8, WIDTHS).eval()
    model.load_state_dict(torch.load(path, weights_only=True)["net"], strict=True)
    images, labels = torch.from_numpy(test.images).permute(0, 3, 1, 2), torch.from_numpy(test.labels)
    triggered = images.clone()
    triggered[:, :, 6:, 6:] = 1.0
    with torch.no_grad():
        clean, attacked = model(images).argmax(1), model(triggered).argmax(1)
    others = labels != 0
    total = int(others.sum())
    return {
        "acc": (int((clean == labels).sum()), len(labels)),
        "asr": (int((attacked[others] == 0).sum()), total),
        "ra": (int((attacked == labels)[others].sum()), total),
    }


def test_the_planted_trigger_stops_working_and_accuracy_stays(finished: tuple[Path, Any]) -> None:
    report = json.loads((finished[0] / "report.json").read_text())
    assert report["before"]["asr"] > 0.9
    assert report["after"]["asr"] < 0.05
    assert report["after"]["acc"] > report["before"]["acc"] - 0.03
    assert report["after"]["ra"] > report["after"]["acc"] - 0.1
    assert report["der"] > 0.9


def test_reactivation_is_judged_by_other_images(finished: tuple[Path, Any]) -> None:
    report = json.loads((finished[0] / "report.json").read_text())
    entries = report["reactivation"]
    assert [entry["images"] for entry in entries] == [5, 20]
    whole = report["after"]["counts"]["asr"][1]
    assert [entry["counts"]["asr"][1] for entry in entries] == [whole - 5, whole - 20]
    assert entries[1]["asr"] >= report["after"]["asr"]
    assert sum(line.startswith("again") for line in finished[1].stdout.splitlines()) == 2


def test_the_evidence_names_the_class_without_knowing_it(finished: tuple[Path, Any]) -> None:
    evidence = json.loads((finished[0] / "report.json").read_text())["evidence"]
    assert evidence["class"] == 0
    assert evidence["share_before"] > 0.5 > evidence["share_after"]


def test_the_model_comes_back_as_it_came(finished: tuple[Path, Any], victim: Path) -> None:
    from safetensors.torch import load_file

    before = torch.load(victim, weights_only=True)
    after = torch.load(finished[0] / "model.pth", weights_only=True)
    assert list(before) == list(after) == ["net"]
    assert list(before["net"]) == list(after["net"])
    for key, tensor in before["net"].items():
        assert (tensor.shape, tensor.dtype) == (after["net"][key].shape, after["net"][key].dtype)
    safe = load_file(finished[0] / "model.safetensors")
    assert all(torch.equal(safe[key], tensor) for key, tensor in after["net"].items())


def test_plain_lines_show_every_round(finished: tuple[Path, Any]) -> None:
    lines = finished[1].stdout.splitlines()
    rounds = [line for line in lines if line.startswith("round ")]
    assert [line.split()[1] for line in rounds] == ["1/3", "2/3", "3/3"]
    assert all(word in rounds[0] for word in ("inner_loss", "outer_loss", "ACC", "ASR", "RA", "left"))
    assert any(line.startswith("before") for line in lines)
    assert any(line.startswith("after") for line in lines)


def test_interrupted_and_resumed_gives_the_same_bits(finished: tuple[Path, Any], victim: Path) -> None:
    folder = victim.parent
    arguments = ("--ckpt", victim, "--clean", "digits[1000:1300]", "--test", "digits[1300:]", "--out", "cut")
    arguments = (*arguments, *PATCH, "--target", 0)
    # Shells let their background jobs ignore it, and so these tests if they are one.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command(*arguments),
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("round 1/3"):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert {path.name for path in (folder / "cut").iterdir()} == {"state.npz"}

    changed = run(folder, *arguments, "--resume", "--seed", 1)
    assert changed.returncode == 2
    assert "had seed 0 and this one has 1" in changed.stderr
    renormalised = run(folder, *arguments, "--resume", "--normalize", "half")
    assert renormalised.returncode == 2
    assert "had preprocessing" in renormalised.stderr
    resumed = run(folder, *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed  after round 1" in resumed.stdout
    straight = json.loads((finished[0] / "report.json").read_text())
    report = json.loads((folder / "cut" / "report.json").read_text())
    assert report["output_sha256"] == straight["output_sha256"]
    assert report["rounds"] == straight["rounds"]
    assert (folder / "cut" / "model.pth").read_bytes() == (finished[0] / "model.pth").read_bytes()


def test_quiet_without_trigger_and_test_images(shop: Path) -> None:
    done = run(shop, *GOOD, "--quiet", "--rounds", 1, "--preset", "reference")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    report = json.loads((shop / "good-ibau" / "report.json").read_text())
    assert report["before"]["asr"] is None
    assert report["der"] is None
    assert report["before"]["counts"]["acc"][1] == 12
    assert any("12 of the clean images are held back" in notice for notice in report["notices"])
    assert any("attack success rate is unknown" in notice for notice in report["notices"])
    assert any("--normalize" in warning for warning in report["warnings"])  # the network was never trained


@pytest.mark.parametrize(
    ("method", "preset", "rounds", "pictures"),
    [
        ("finetune", "default", 1, set()),
        ("ulrl", "reference", 21, {"scores.png"}),
        ("sau", "reference", 1, {"perturbation.png"}),
        ("sau", "fast", 1, {"perturbation.png"}),
    ],
)
def test_the_other_methods_have_the_same_command(
    shop: Path, method: str, preset: str, rounds: int, pictures: set[str]
) -> None:
    name = f"{method}-{preset}"
    flags = (*PATCH, "--target", 3, "--preset", preset, "--rounds", rounds, "--out", name)
    done = run(shop, *GOOD, *flags, method=method)
    assert done.returncode == 0, done.stderr
    report = json.loads((shop / name / "report.json").read_text())
    assert (report["method"], report["preset"], len(report["rounds"])) == (method, preset, rounds)
    assert report["before"]["asr"] is not None and report["after"]["ra"] is not None
    assert report["evidence"]["sentence"] in done.stdout
    common = {"model.pth", "model.safetensors", "report.json", "curves.png"}
    assert {path.name for path in (shop / name).iterdir()} == common | pictures
    for picture in pictures:
        with Image.open(shop / name / picture) as opened:
            assert opened.width > 300


def test_photographs_of_any_size(shop: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        (shop / "photos" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (10 + number % 3, 12)).astype(np.uint8)
        Image.fromarray(pixels).save(shop / "photos" / str(number % 2) / f"{number}.png")
    done = run(shop, "--ckpt", "good.pth", "--clean", "folder:photos", "--out", "sized", "--rounds", 1)
    assert done.returncode == 0, done.stderr
    notices = json.loads((shop / "sized" / "report.json").read_text())["notices"]
    assert any("60 of the 60 pictures" in notice and "from 10x12 to 12x12" in notice for notice in notices)
    assert any("2 of the model's 10 classes" in notice for notice in notices)


def test_nan_in_the_first_round_stops_with_a_sentence(shop: Path) -> None:
    arguments = (
        "--set",
        "learning_rate=1e38",
        "--set",
        "optimizer=sgd",
        "--set",
        "batch_size=8",
        "--out",
        "nan",
    )
    done = run(shop, *GOOD, "--preset", "reference", *arguments)
    assert done.returncode == 1
    assert "Round 1 gave NaN or infinite values in" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((shop / "nan").iterdir()) == []


def test_help_names_every_flag(shop: Path) -> None:
    done = run(shop, "--help")
    assert done.returncode == 0
    flags = (
        "--demo",
        "--ckpt",
        "--clean",
        "--test",
        "--trigger",
        "--target",
        "--normalize",
        "--channels",
        "--size",
        "--preset",
        "--rounds",
        "--seed",
    )
    for flag in (*flags, "--out", "--resume", "--force", "--quiet", "--set"):
        assert flag in done.stdout
