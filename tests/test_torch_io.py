"""Reading hostile and odd checkpoints."""

import collections
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune

from converters import convert, safetensors_io, torch_io
from converters.numpy_twins import TwinArray, TwinDtype
from jaxunlearn._check import InputError
from jaxunlearn.models import named


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
        (torch.zeros(1).expand(2**20, 2**20), "far more than the"),
        (torch.tensor([1.0, float("inf")]), "NaN or infinite"),
        (torch.tensor([1.0, -1e300], dtype=torch.float64), "too large for single precision"),
        (torch.zeros([1] * 9), "has 9 axes"),
        (torch.zeros([1] * 65), "has 65 axes"),
        (torch._neg_view(torch.ones(2)), "negated view"),
        (torch.zeros(3, device="meta"), "has no values"),
    ],
)
def test_tensors_that_cannot_be_weights(tensor: torch.Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        torch_io.read(saved(tmp_path / "a.pth", {"w": tensor}))


def test_two_state_dicts_are_ambiguous(tmp_path: Path) -> None:
    content = {"net": {"w": torch.zeros(1)}, "model": {"w": torch.ones(1)}}
    with pytest.raises(InputError, match=r"several state dicts \('net', 'model'\).*--key NAME"):
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


def one(value: float = 0.0) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2,), value)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": one(), "model_ema": one()}, r"several state dicts \('model', 'model_ema'\)"),
        (
            {"state_dict_ema": one(), "epoch": 3},
            r"only averaged weights \('state_dict_ema'\).*--key 'state_dict_ema'",
        ),
        ({"generator": one(), "critic": one()}, r"unusual names \('generator', 'critic'\).*--key NAME"),
        ({"net": {"": torch.zeros(1)}}, "of 0 characters"),
        ({"net": {"a\x1b[31m": torch.zeros(1)}}, "printable"),
        ({"net": {"a" * 301: torch.zeros(1)}}, "of 301 characters"),
        ({"model": one(), "\x1b[2J_ema": one()}, r"several state dicts \('model', '\\x1b\[2J_ema'\)"),
        ({"\x1b[2J_ema": one()}, r"only averaged weights \('\\x1b\[2J_ema'\).*--key '\\x1b\[2J_ema'"),
        ({("net", 1): one()}, r"its entries are \('net', 1\)"),
    ],
)
def test_a_network_is_never_guessed(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        torch_io.read(saved(tmp_path / "a.pth", content))


def test_the_key_decides(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"model": one(1), "ema": one(2), "epoch": 3})
    checkpoint = torch_io.read(path, key="ema")
    assert checkpoint.arrays["w"].tolist() == [2, 2]
    (tmp_path / "b.pth").write_bytes(torch_io.encode(checkpoint, {"w": np.full(2, 5, np.float32)}))
    again = torch.load(tmp_path / "b.pth", weights_only=True)
    assert [again["model"]["w"].tolist(), again["ema"]["w"].tolist(), again["epoch"]] == [[1, 1], [5, 5], 3]
    with pytest.raises(InputError, match="holds no state dict 'net' but the state dicts 'model', 'ema'"):
        torch_io.read(path, key="net")
    with pytest.raises(InputError, match="leave --key away"):
        torch_io.read(saved(tmp_path / "bare.pth", one()), key="net")


@pytest.mark.parametrize(
    ("keys", "prefix"),
    [
        (("module._orig_mod.a", "module._orig_mod.b"), "module._orig_mod."),
        (("model.net.a", "model.net.b"), "model.net."),
        (("module.module.a", "module.b"), "module."),
        (("module.", "module.a"), ""),
        (("module.a", "b"), ""),
        (("1.a", "1.b"), ""),
    ],
)
def test_prefixes(keys: tuple[str, ...], prefix: str, tmp_path: Path) -> None:
    content = {key: torch.rand(2) for key in keys}
    checkpoint = torch_io.read(saved(tmp_path / "a.pth", content))
    assert checkpoint.prefix == prefix
    assert [prefix + key for key in checkpoint.arrays] == list(keys)
    (tmp_path / "b.pth").write_bytes(torch_io.encode(checkpoint, checkpoint.arrays))
    again = torch.load(tmp_path / "b.pth", weights_only=True)
    assert all(torch.equal(again[key], content[key]) for key in keys)


def pruned() -> nn.Module:
    return prune.random_unstructured(nn.Conv2d(3, 4, 3), "weight", 0.5)


def old_weight_norm(dim: int | None) -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(nn.Conv2d(3, 4, 3), dim=dim)


REPARAMETRISED: dict[str, Callable[[], nn.Module]] = {
    "pruning": pruned,
    "weight norm, old": lambda: old_weight_norm(0),
    "weight norm, old, other axis": lambda: old_weight_norm(1),
    "weight norm, old, whole": lambda: old_weight_norm(None),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 5)),
    "spectral norm, old": lambda: nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(5, 5)),
    "spectral norm, transposed": lambda: nn.utils.parametrizations.spectral_norm(nn.ConvTranspose2d(3, 4, 3)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", REPARAMETRISED)
def test_parts_of_weights_are_put_together_as_torch_does(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    layer = REPARAMETRISED[kind]().to(dtype)
    model = nn.Sequential(nn.Linear(1, 1).to(dtype), layer).eval()
    with torch.no_grad():
        layer(
            torch.ones((1, layer.in_features) if isinstance(layer, nn.Linear) else (1, 3, 5, 5), dtype=dtype)
        )
        expected = layer.weight.clone()
    checkpoint = torch_io.read(saved(tmp_path / "a.pth", {"net": model.state_dict()}))
    assert set(checkpoint.arrays) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    (notice,) = checkpoint.notices
    assert notice.startswith(f"1.weight came in parts ({kind.partition(',')[0]})")
    (tmp_path / "b.pth").write_bytes(torch_io.encode(checkpoint, checkpoint.arrays))
    again = torch.load(tmp_path / "b.pth", weights_only=True)["net"]
    assert torch.equal(again["1.weight"], expected)
    assert again["1.weight"].dtype == dtype


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"a.weight_mask": (2,)}, "a.weight only as mask"),
        ({"a.weight_orig": (2,)}, "a.weight only as orig"),
        (
            {"a.weight_orig": (2,), "a.weight_mask": (1,)},
            r"do not fit one another: orig \(2,\) of torch.float32, mask \(1,\) of",
        ),
        ({"a.weight_g": (3,), "a.weight_v": (2, 2)}, "do not fit one another"),
        ({"a.weight_orig": (2, 2), "a.weight_u": (3,), "a.weight_v": (2,)}, "do not fit one another"),
        ({"a.weight": (2,), "a.weight_orig": (2,), "a.weight_mask": (2,)}, "holds both a.weight and"),
        ({"a.weight_g": (0, 1), "a.weight_v": (0, 5)}, r"a.weight in parts without values \(g, v\)"),
        ({"a.weight_orig": (0, 5), "a.weight_u": (0,), "a.weight_v": (5,)}, "without values"),
        ({"a.weight_orig": (0,), "a.weight_mask": (0,)}, "without values"),
        ({"a.parametrizations.weight.original": (2, 2)}, "a.weight only as original"),
    ],
)
def test_incomplete_parts_are_refused(
    parts: dict[str, tuple[int, ...]], message: str, tmp_path: Path
) -> None:
    content = {key: torch.ones(shape) for key, shape in parts.items()}
    with pytest.raises(InputError, match=message):
        torch_io.read(saved(tmp_path / "a.pth", content))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_a_spectral_norm_is_of_real_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    shapes = {"a.weight_orig": (2, 3), "a.weight_u": (2,), "a.weight_v": (3,)}
    content = {key: torch.ones(shape).to(dtype) for key, shape in shapes.items()}
    with pytest.raises(InputError, match=rf"do not fit one another: orig \(2, 3\) of {dtype}"):
        torch_io.read(saved(tmp_path / "a.pth", content))


def test_axes_are_counted_before_their_sizes_are_multiplied() -> None:
    header = b'{"w":{"dtype":"F32","shape":%b,"data_offsets":[0,4]}}' % str([2**62] * 9).encode()
    with pytest.raises(ValueError, match="has 9 axes"):
        safetensors_io.decode(len(header).to_bytes(8, "little") + header + bytes(4))
    for shape in ((1,) * 33, (0, 2**63)):
        with pytest.raises(ValueError, match="not plain numbers"):
            TwinArray().__setstate__((1, shape, TwinDtype("f4"), False, bytes(4 if shape[0] else 0)))


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a state dict."""
    spec = named(name, classes=10)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), spec.shapes())
    return {key: array.shape for key, array in convert.to_torch(spec, variables).items()}


@pytest.mark.parametrize(
    ("name", "key", "shape", "message"),
    [
        ("small_vgg", "features.0.weight", (32, 0, 3, 3), r"weight is empty, of shape \(32, 0, 3, 3\)"),
        ("small_vgg", "classifier.weight", (0, 10**16), "classifier.weight is empty"),
        ("mobilenet_v3_large", "features.1.block.0.0.weight", (16, 1, 2, 2), "shapes that make no network"),
    ],
)
def test_shapes_that_make_no_network(name: str, key: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        convert.recognise({**shapes_of(name), key: shape})


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="File name too long"):
        torch_io.read(tmp_path / ("a" * 300))


def test_files_from_before_torch_1_6_stay_such_files(tmp_path: Path) -> None:
    content = {"net": {"module.w": torch.rand(3), "module.n": torch.tensor(7)}, "epoch": 3}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    checkpoint = torch_io.read(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(
        torch_io.encode(checkpoint, {**checkpoint.arrays, "w": np.ones(3, np.float32)})
    )
    starts = [(tmp_path / name).read_bytes()[:15] for name in ("a.pth", "b.pth")]
    assert starts[0] == starts[1]
    assert torch_io.read(tmp_path / "b.pth").kind == "legacy"
    again = torch.load(tmp_path / "b.pth", weights_only=True)
    assert list(again) == ["net", "epoch"]
    assert {key: tensor.tolist() for key, tensor in again["net"].items()} == {
        "module.w": [1, 1, 1],
        "module.n": 7,
    }


def test_safetensors_go_back_as_they_came(tmp_path: Path) -> None:
    content = {
        "module.z": torch.rand(3).to(torch.bfloat16),
        "module.a": torch.rand(2, 2).half(),
        "module.n": torch.tensor(7),
        "module.f": torch.rand(1, 5, dtype=torch.float64),
    }
    save_file(content, tmp_path / "a.safetensors", metadata={"format": "pt", "by": "someone"})
    checkpoint = torch_io.read(tmp_path / "a.safetensors")
    assert (checkpoint.kind, checkpoint.prefix, checkpoint.suffix) == (
        "safetensors",
        "module.",
        ".safetensors",
    )
    assert checkpoint.content == {"format": "pt", "by": "someone"}
    written = torch_io.encode(checkpoint, checkpoint.arrays)
    assert written == (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(written)
    again = load_file(tmp_path / "b.safetensors")
    assert all(torch.equal(again[key], tensor) for key, tensor in content.items())


def test_parts_of_weights_in_safetensors_are_written_as_weights(tmp_path: Path) -> None:
    layer = pruned()
    save_file(
        {key: value.contiguous() for key, value in layer.state_dict().items()},
        tmp_path / "a.safetensors",
        {"by": "me"},
    )
    checkpoint = torch_io.read(tmp_path / "a.safetensors")
    assert checkpoint.notices
    (tmp_path / "b.safetensors").write_bytes(torch_io.encode(checkpoint, checkpoint.arrays))
    again = torch_io.read(tmp_path / "b.safetensors")
    assert again.content == checkpoint.content
    assert again.arrays.keys() == checkpoint.arrays.keys()
    for name, array in checkpoint.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)


def test_the_weights_of_a_pickled_file_are_written_as_safetensors(tmp_path: Path) -> None:
    content = {
        f"module.{name}": torch.rand(3).to(dtype)
        for name, dtype in (("b", torch.float16), ("a", torch.float32))
    }
    checkpoint = torch_io.read(saved(tmp_path / "a.pth", content))
    (tmp_path / "a.safetensors").write_bytes(torch_io.encode_safetensors(checkpoint, checkpoint.arrays))
    again = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(again[key], tensor) for key, tensor in content.items())


def test_arrays_share_the_memory_of_the_file(tmp_path: Path) -> None:
    checkpoint = torch_io.read(
        saved(tmp_path / "a.pth", {"w": torch.rand(5), "h": torch.rand(5).to(torch.bfloat16)})
    )
    for key, array in checkpoint.arrays.items():
        assert array.ctypes.data == checkpoint.content[key].data_ptr()
        assert not array.flags.writeable


def test_the_hash_and_what_a_file_asks_for(tmp_path: Path) -> None:
    for name, new in (("new.pth", True), ("old.pth", False)):
        torch.save(one(), tmp_path / name, _use_new_zipfile_serialization=new)
        checkpoint = torch_io.read(tmp_path / name)
        assert checkpoint.sha256 == torch_io.hash_file(tmp_path / name)
        assert checkpoint.kind == ("zip" if new else "legacy")
        assert "torch.FloatStorage" in checkpoint.globals
        assert checkpoint.size == (tmp_path / name).stat().st_size


ATTACK_EXTRAS = {
    "model_name": "preactresnet18",
    "num_classes": 10,
    "img_size": (32, 32, 3),
    "clean_data": "cifar10",
    "data_path": "../data/cifar10",
    "bd_train": None,
    "bd_test": {
        "bd_data_container": {
            "save_folder_path": "record/bd_test_dataset",
            "data_dict": {np.int64(3): {"path": "record/bd_test_dataset/1/3.png", "other_info": [0, 1]}},
            "save_file_format": ".png",
        },
        "original_index_array": np.arange(4),
        "poison_indicator": np.ones(4),
    },
}


@pytest.mark.parametrize("numpy", ["2", "1"])
def test_attack_result(numpy: str, tmp_path: Path) -> None:
    state_dict = collections.OrderedDict(w=torch.rand(3))
    path = saved(tmp_path / "attack_result.pt", {**ATTACK_EXTRAS, "model": state_dict})
    if numpy == "1":
        path = rewritten(path, b"numpy._core", b"numpy.core")
    checkpoint = torch_io.read(path)
    assert checkpoint.facts == torch_io.Facts("preactresnet18", 10, "cifar10", (32, 32, 3))
    (tmp_path / "b.pt").write_bytes(torch_io.encode(checkpoint, {"w": np.zeros(3, np.float32)}))
    again = torch.load(tmp_path / "b.pt", weights_only=False)  # as BackdoorBench does; our own file
    assert list(again) == [*ATTACK_EXTRAS, "model"]
    assert type(again["model"]) is collections.OrderedDict
    assert again["model"]["w"].tolist() == [0, 0, 0]
    test, expected = again["bd_test"], ATTACK_EXTRAS["bd_test"]
    (index,) = test["bd_data_container"]["data_dict"]
    assert type(index) is np.int64
    for name in ("original_index_array", "poison_indicator"):
        assert type(test[name]) is np.ndarray
        assert test[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(test[name], expected[name])
    assert test["bd_data_container"] == expected["bd_data_container"]
    assert not [entry for entry in torch.serialization.get_safe_globals() if isinstance(entry, tuple)]


def rewritten(path: Path, old: bytes, new: bytes) -> Path:
    """The same archive with a change in its pickle."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)
    return path


def test_archives_whose_numbers_need_64_bits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", one(3))
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 0)
    rewritten(path, b"", b"")
    with zipfile.ZipFile(path) as archive:
        assert all(entry.extra.startswith(b"\1\0") for entry in archive.infolist())
    assert path.read_bytes()[-42:].startswith(b"PK\6\7")
    assert torch_io.read(path).arrays["w"].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (np.array([{}], object), "cannot be read"),
        (np.zeros(2, "i4,f8"), "cannot be read"),
        (np.array(["text"]), "cannot be read"),
        (np.zeros(2, ">f8"), "cannot be read"),
        (np.random.default_rng, "asks to run numpy.random"),
        (Image.new("L", (2, 2)), "pictures as Python objects.*on disk"),
    ],
)
def test_attack_results_with_anything_but_numbers(entry: Any, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"model": one(), "index": np.arange(3), "odd": entry})
    with pytest.raises(InputError, match=message):
        torch_io.read(path)


def test_defense_result_of_fine_pruning(tmp_path: Path) -> None:
    state_dict = collections.OrderedDict(
        {
            "linear.bias": torch.ones(2),
            "linear.weight_orig": torch.ones(2, 2),
            "linear.weight_mask": torch.eye(2),
        }
    )
    content = {"model_name": "x", "num_classes": "two", "model": state_dict, "test_acc": 0.5}
    checkpoint = torch_io.read(saved(tmp_path / "a.pt", content))
    assert checkpoint.facts == torch_io.Facts(model_name="x")
    (tmp_path / "b.pt").write_bytes(torch_io.encode(checkpoint, checkpoint.arrays))
    again = torch.load(tmp_path / "b.pt", weights_only=True)
    assert list(again) == list(content)
    assert list(again["model"]) == ["linear.bias", "linear.weight"]
    assert torch.equal(again["model"]["linear.weight"], torch.eye(2))


def bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/data/0", bytes(2**26))
    return path


# A dictionary whose key is a tuple that doubles sixty times: hashing it would take for ever.
DOUBLING = b"\x80\x02})" + b"".join(b"q%ch%ch%c\x86" % (i, i, i) for i in range(60)) + b"K\x01s."
HARMLESS = b"\x80\x02}."


def archive_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def nested(path: Path) -> Path:
    path.write_bytes(archive_of({"a/data.pkl": DOUBLING, "a/version": b"3"}))
    return path


def hidden_by_case(path: Path) -> Path:
    path.write_bytes(archive_of({"a/DATA.PKL": DOUBLING, "a/data.pkl": HARMLESS, "a/version": b"3"}))
    return path


def nested_in_capitals(path: Path) -> Path:
    path.write_bytes(archive_of({"a/DATA.PKL": DOUBLING, "a/version": b"3"}))
    return path


def second_pickle(path: Path) -> Path:
    path.write_bytes(
        archive_of({"a/data.pkl": HARMLESS, "a/extra.pkl": b"cos\nsystem\n.", "a/version": b"3"})
    )
    return path


def hidden_directory(path: Path) -> Path:
    """Records for large archives, hidden in a member's comment, lead to another directory."""
    with path.open("wb+") as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a/data.pkl", DOUBLING)
            archive.writestr("a/version", b"3")
        end = file.seek(-22, 2)
        start = archive.start_dir
        file.write(struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, end - start, start))
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a/data.pkl", HARMLESS)
            last = zipfile.ZipInfo("a/version")
            last.comment = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
            archive.writestr(last, b"3")
    return path


def shifted_directory(path: Path) -> Path:
    """Where some readers add what was put in front of an archive to its positions, and others do not."""
    good = archive_of({"a/data.pkl": HARMLESS, "a/version": b"3"})
    path.write_bytes(archive_of({"a/data.pkl": DOUBLING, "a/version": b"3"}) + good)
    return path


def miscounted(path: Path) -> Path:
    """torch.save's own records for large archives, with one member less in them."""
    content = bytearray(saved(path, {"w": torch.zeros(1)}).read_bytes())
    record = content.rindex(b"PK\6\6")
    content[record + 32] -= 1
    path.write_bytes(content)
    return path


def with_field(name: str, value: bytes) -> Callable[[Path], Path]:
    """An archive whose last member has a comment or an extra field."""

    def write(path: Path) -> Path:
        last = zipfile.ZipInfo("a/version")
        setattr(last, name, value)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", HARMLESS)
            archive.writestr(last, b"3")
        return path

    return write


def encoded(codec: str) -> Callable[[Path], Path]:
    """Bytes as protocol 2 spells them, in some codec; the third argument of the call tries to hide it."""
    call = b"c_codecs\nencode\nX\x03\0\0\0abcX%c\0\0\0%b" % (len(codec), codec.encode())
    hidden = b"\x87" if codec == "punycode" else b"\x86"
    error = b"X\x06\0\0\0latin1" if codec == "punycode" else b""

    def write(path: Path) -> Path:
        content = b"\x80\x02}" + call + error + hidden + b"RK\x01s."
        path.write_bytes(archive_of({"a/data.pkl": content, "a/version": b"3", "a/byteorder": b"little"}))
        return path

    return write


def legacy_tar(path: Path) -> Path:
    import tarfile

    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "storages")
    return path


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (bomb, "expands to"),
        (nested, "nested without end"),
        (nested_in_capitals, "nested without end"),
        (hidden_by_case, "two members of one name"),
        (hidden_directory, "end does not describe what it holds"),
        (shifted_directory, "end does not describe what it holds"),
        (miscounted, "end does not describe what it holds"),
        (second_pickle, "pickles besides data.pkl"),
        (with_field("comment", b"x"), "with comments"),
        (with_field("extra", b"UT\0\0"), "with extra fields"),
        (with_field("extra", b"\1\0\0\0\1\0\0\0"), "with extra fields"),
        (encoded("idna"), "encodes text otherwise"),
        (encoded("punycode"), "encodes text otherwise"),
        (encoded("latin1"), "holds no state dict: its entries are b'abc'"),
        (legacy_tar, "a tar archive"),
        (lambda path: saved(path, {"w": print}), "asks to run"),
        (lambda path: (path.write_bytes(pickle.dumps({"w": 1})), path)[1], "torch.save writes no"),
    ],
)
def test_files_built_to_hurt(write: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        torch_io.read(write(tmp_path / "a.pth"))


def test_attributes_cannot_hide_methods(tmp_path: Path) -> None:
    state_dict = collections.OrderedDict(w=torch.ones(1))
    state_dict.values = "hidden"  # type: ignore[method-assign,assignment]
    state_dict.keys = "hidden"  # type: ignore[method-assign,assignment]
    checkpoint = torch_io.read(saved(tmp_path / "a.pth", state_dict))
    assert checkpoint.arrays["w"].tolist() == [1]
    assert vars(checkpoint.content) == {}


def test_a_pickle_that_cannot_be_unpacked(tmp_path: Path) -> None:
    """Its member is compressed, and damaged."""
    good, buffer = saved(tmp_path / "good.pth", one()), io.BytesIO()
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(buffer, "w") as packed:
        for entry in source.infolist():
            pickled = entry.filename.endswith("data.pkl")
            packed.writestr(
                entry.filename, source.read(entry), zipfile.ZIP_DEFLATED if pickled else zipfile.ZIP_STORED
            )
    raw = bytearray(buffer.getvalue())
    (tmp_path / "packed.pth").write_bytes(raw)
    torch_io.read(tmp_path / "packed.pth")
    start = raw.index(b"data.pkl") + len("data.pkl")
    raw[start + 5 : start + 30] = bytes(byte ^ 255 for byte in raw[start + 5 : start + 30])
    (tmp_path / "damaged.pth").write_bytes(raw)
    with pytest.raises(InputError):
        torch_io.read(tmp_path / "damaged.pth")


def test_names_and_shapes_that_no_network_has() -> None:
    shapes = shapes_of("resnet18_cifar")
    with pytest.raises(InputError):
        convert.recognise(shapes | {"layer1.0.conv1.weight": ()})
    for number in ("00", "\u0661", "9" * 5000):
        vgg = {
            key.replace("features.0.", f"features.{number}."): shape
            for key, shape in shapes_of("vgg11").items()
        }
        with pytest.raises(InputError):
            convert.recognise(vgg)
