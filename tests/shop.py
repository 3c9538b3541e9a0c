"""A folder with a good checkpoint, good images and everything that can be wrong, and the program run in it."""

import os
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
from jaxunlearn.models import DenseNet, small_vgg
from jaxunlearn.models.densenet import densenet

WIDTHS = (16, 32, 64)


def command(*arguments: object, method: str = "ibau") -> list[str]:
    return [sys.executable, "-m", f"jaxunlearn.{method}", *map(str, arguments)]


def environment() -> dict[str, str]:
    """As a user's, but optimised less: a whole run compiles as much as it computes."""
    flags = "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"
    return {**os.environ, "XLA_FLAGS": flags}


def execute(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


def run(folder: Path, *arguments: object, method: str = "ibau") -> subprocess.CompletedProcess[str]:
    return execute(folder, command(*arguments, method=method))


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

    strided = densenet(DenseNet(10, (1, 1, 1, 1), 8, 4, 16, (6, 5, 4)), (32, 32, 1))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), strided.shapes())
    (folder / "strided.pth").write_bytes(torch_io.new_state_dict_bytes(convert.to_torch(strided, zeros)))

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
