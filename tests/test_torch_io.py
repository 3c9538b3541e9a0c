"""Reading hostile and odd checkpoints."""

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converters import torch_io
from jaxunlearn._check import InputError


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("version", ["2.9.1", "1.13.0+cpu", "2.4.0a0"])
def test_torch_with_known_holes_is_refused(
    version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = saved(tmp_path / "a.pth", {"w": torch.zeros(1)})
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(InputError, match=r"2\.10 or newer"):
        torch_io.read(path)


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0.0"])
def test_torch_without_them_is_accepted(
    version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = saved(tmp_path / "a.pth", {"w": torch.zeros(1)})
    monkeypatch.setattr(torch, "__version__", version)
    assert list(torch_io.read(path).arrays) == ["w"]


def test_the_reader_never_leaves_weights_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    real = torch.load

    def spy(*args: Any, **keywords: Any) -> Any:
        asked.append(keywords.get("weights_only"))
        return real(*args, **keywords)

    monkeypatch.setattr(torch, "load", spy)
    torch_io.read(saved(tmp_path / "good.pth", {"w": torch.zeros(1)}))
    with pytest.raises(InputError):
        torch_io.read(saved(tmp_path / "bad.pth", {"w": pytest.fixture}))
    assert asked == [True, True]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.eye(3).to_sparse(), "sparse_coo"),
        (torch.zeros(2, dtype=torch.complex64), "complex64"),
        (torch.zeros(1).expand(2**20, 2**20), "bytes, which no supported network needs"),
        (torch.tensor([1.0, float("inf")]), "NaN or infinite"),
        (torch.zeros(3, device="meta"), "has no values"),
    ],
)
def test_tensors_that_cannot_be_weights(tensor: torch.Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        torch_io.read(saved(tmp_path / "a.pth", {"w": tensor}))


def test_two_state_dicts_are_ambiguous(tmp_path: Path) -> None:
    content = {"net": {"w": torch.zeros(1)}, "model": {"w": torch.ones(1)}}
    with pytest.raises(InputError, match=r"several state dicts \(net, model\)"):
        torch_io.read(saved(tmp_path / "a.pth", content))


def test_torchscript_is_named(tmp_path: Path) -> None:
    path = tmp_path / "script.pth"
    with pytest.warns(DeprecationWarning):
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(path))
    with pytest.raises(InputError, match="TorchScript"):
        torch_io.read(path)


def test_module_metadata_survives(tmp_path: Path) -> None:
    state_dict = torch.nn.BatchNorm2d(2).state_dict()
    checkpoint = torch_io.read(saved(tmp_path / "a.pth", state_dict))
    (tmp_path / "b.pth").write_bytes(torch_io.encode(checkpoint, checkpoint.arrays))
    again = torch.load(tmp_path / "b.pth", weights_only=True)
    assert isinstance(again, collections.OrderedDict)
    assert again._metadata == state_dict._metadata


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    checkpoint = torch_io.read(saved(tmp_path / "a.pth", {"w": torch.arange(3.0)}))
    arrays = {"w": np.ones(3, np.float32)}
    assert torch_io.encode(checkpoint, arrays) == torch_io.encode(checkpoint, arrays)
