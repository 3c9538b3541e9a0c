"""``python -m converters``: formats, the way back, and what it says of a file."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from converters import convert, torch_io
from converters.__main__ import main
from converters.inspection import inspect
from experiments.torch_ibau import SmallVGG
from jaxunlearn._tree import named_leaves


def state_dict() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return SmallVGG(10, 1, 8, (8, 8, 8)).state_dict()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in state_dict().items()}}, tmp_path / "m.pth"
    )
    return tmp_path / "m.pth"


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def test_to_safetensors_and_back(model: Path, tmp_path: Path) -> None:
    safe, back = tmp_path / "m.safetensors", tmp_path / "back.pth"
    assert main([str(model), str(safe), "--arch", "small_vgg"]) == 0
    expected = torch.load(model, weights_only=True)["state_dict"]
    found = load_file(safe)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert main([str(safe), str(back), "--like", str(model)]) == 0
    again = torch.load(back, weights_only=True)
    assert list(again) == ["state_dict"]
    assert all(torch.equal(again["state_dict"][key], value) for key, value in expected.items())


def test_to_flax_and_back(model: Path, tmp_path: Path) -> None:
    flax, back = tmp_path / "m.npz", tmp_path / "back.pth"
    assert main([str(model), str(flax)]) == 0
    variables = named_leaves(convert.from_torch(torch_io.read(model).arrays).variables)
    with np.load(flax, allow_pickle=False) as archive:
        assert "params/classifier/kernel" in archive.files
        assert set(archive.files) == set(variables)
        changed = {name: archive[name] + 1 for name in archive.files}
    np.savez(flax, **changed)  # type: ignore[arg-type]
    assert main([str(flax), str(back), "--like", str(model)]) == 0
    before, after = (torch_io.read(path).arrays for path in (model, back))
    for key, array in before.items():
        np.testing.assert_array_equal(after[key], array + (0 if array.dtype == np.int64 else 1))


def test_nothing_is_overwritten_unasked(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.npz"
    out.write_bytes(b"precious")
    assert "give --force" in refused(capsys, model, out)
    assert out.read_bytes() == b"precious"
    assert main([str(model), str(out), "--force"]) == 0
    assert out.read_bytes() != b"precious"


def test_bad_input(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.pth"
    torch.save(SmallVGG(9, 1, 8, (8, 8, 8)).state_dict(), other)
    np.savez(tmp_path / "odd.npz", x=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK")
    assert "not a resnet18" in refused(capsys, model, tmp_path / "a.npz", "--arch", "resnet18")
    assert "expected .safetensors or .npz" in refused(capsys, model, tmp_path / "a.onnx")
    assert "no folder" in refused(capsys, model, tmp_path / "absent" / "a.npz")
    assert "differ in 2 tensors" in refused(capsys, other, tmp_path / "a.pth", "--like", model)
    assert "does not hold the variables" in refused(
        capsys, tmp_path / "odd.npz", tmp_path / "a.pth", "--like", model
    )
    assert "cannot be read" in refused(capsys, tmp_path / "broken.npz", tmp_path / "a.pth", "--like", model)
    assert "should end in .pth" in refused(capsys, other, tmp_path / "a.onnx", "--like", model)
    assert "no file" in refused(capsys, tmp_path / "absent.pth", tmp_path / "a.npz")
    assert not [path for path in tmp_path.iterdir() if path.stem == "a"]


def test_leaves_that_are_not_those_of_the_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, flax = tmp_path / "m.pth", tmp_path / "m.npz"
    torch.save({**state_dict(), "classifier.bias": torch.ones(10, dtype=torch.int32)}, model)
    assert main([str(model), str(flax)]) == 0
    with np.load(flax) as archive:
        leaves = {name: archive[name] for name in archive.files}
    kernel, bias = "params/classifier/kernel", "params/classifier/bias"
    assert leaves[bias].dtype == np.int32
    odd: list[tuple[dict[str, Any], str]] = [
        ({**leaves, "extra": np.arange(3)}, "'extra' differs"),
        ({name: leaf for name, leaf in leaves.items() if name != bias}, f"{bias!r} differs"),
        ({**leaves, bias: leaves[bias].astype(np.float32)}, f"{bias!r} differs"),
        ({**leaves, kernel: leaves[kernel] * np.nan}, "NaN or infinite values for classifier.weight"),
        (
            {**leaves, kernel: leaves[kernel].astype(np.float64) + 1e300},
            "NaN or infinite values for classifier.weight",
        ),
    ]
    for changed, message in odd:
        np.savez(flax, **changed)
        assert message in refused(capsys, flax, tmp_path / "back.pth", "--like", model)
    assert not (tmp_path / "back.pth").exists()
    np.savez(flax, **{**leaves, kernel: leaves[kernel].astype(np.float64)})
    assert main([str(flax), str(tmp_path / "back.pth"), "--like", str(model)]) == 0


def test_names_that_no_file_can_have(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = tmp_path / ("a" * 300 + ".npz")
    assert "File name too long" in refused(capsys, "inspect", long)
    assert "File name too long" in refused(capsys, model, long)
    assert "File name too long" in refused(capsys, long, tmp_path / "back.pth", "--like", model)


def test_names_are_described_without_control_characters(model: Path) -> None:
    odd = dataclasses.replace(torch_io.read(model), globals=("os\x1b[2J.system",))
    assert inspect(odd)["globals"] == [r"os\x1b[2J.system"]


def described(capsys: pytest.CaptureFixture[str], path: Path) -> dict[str, Any]:
    assert main(["inspect", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_inspect_a_good_file(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = described(capsys, model)
    assert (found["container"], found["key"], found["prefix"]) == ("zip", "state_dict", "module.")
    assert (found["architecture"], found["classes"], found["image_shape"]) == ("small_vgg", 10, [8, 8, 1])
    assert found["sha256"] == torch_io.hash_file(model)
    network = SmallVGG(10, 1, 8, (8, 8, 8))
    assert found["parameters"] == sum(p.numel() for p in network.parameters())
    assert found["suspicious"] == []
    assert main(["inspect", str(model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "architecture  small_vgg" in lines
    assert "image shape   8 x 8 x 1" in lines


def test_inspect_says_what_is_odd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = state_dict()
    odd["features.0.bias"][1] = float("nan")
    odd["features.3.weight"][2] = 0
    odd["features.4.weight"][5] = 0
    odd["features.9.running_var"][3] = -1
    odd["features.11.weight"] *= 1000
    odd["classifier.weight"][7] *= 100
    torch.save(odd, tmp_path / "odd.pth")
    found = described(capsys, tmp_path / "odd.pth")
    assert found["architecture"] == "small_vgg"
    expected = (
        "features.0.bias holds 1 NaN",
        "features.3.weight has 1 of 8 filters constant (zero): 2.",
        "features.4.weight scales 1 of 8 channels to nothing: 5.",
        "features.9.running_var is zero or negative in 1 of 8 channels: 3.",
        "features.11.weight has filters of an odd norm",
        "classifier.weight has an odd row for class 7",
    )
    assert len(found["suspicious"]) == len(expected)
    for start in expected:
        assert [line for line in found["suspicious"] if line.startswith(start)], start


def test_inspect_double_precision_that_single_cannot_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = state_dict()
    odd["features.0.bias"] = odd["features.0.bias"].double()
    odd["features.0.bias"][1] = 1e300
    torch.save(odd, tmp_path / "odd.pth")
    assert described(capsys, tmp_path / "odd.pth")["suspicious"] == [
        "features.0.bias holds 1 NaN or infinite values (in single precision)."
    ]
    assert "too large for single precision" in refused(
        capsys, tmp_path / "odd.pth", tmp_path / "odd.safetensors"
    )


def test_inspect_an_unknown_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"fc.weight": torch.eye(2)}, tmp_path / "a.pth")
    found = described(capsys, tmp_path / "a.pth")
    assert found["architecture"] is None
    assert "fit no known architecture" in found["recognition"]


def test_as_a_process(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("these are no weights")
    done = subprocess.run(
        [sys.executable, "-m", "converters", "inspect", "text.pth"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "text.pth cannot be read as a PyTorch checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
