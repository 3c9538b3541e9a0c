"""Whatever container a state dict comes in, it goes back bit for bit."""

import collections
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from converters import convert, torch_io
from experiments.torch_ibau import SmallVGG
from jaxunlearn._tree import named_leaves
from jaxunlearn.models import NAMES, named

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
CONTAINERS = (None, "net", "state_dict", "model_state_dict", "model", "weights", "params")
PREFIXES = ("", "module.", "_orig_mod.", "module._orig_mod.", "model.net.", "_fsdp_wrapped_module.backbone.")


@st.composite
def checkpoints(draw: st.DrawFn) -> tuple[Any, str | None, str]:
    """The content of a file, its container key, and the prefix of its keys."""
    torch.manual_seed(draw(st.integers(0, 2**31 - 1)))
    model = SmallVGG(
        draw(st.integers(2, 5)),
        channels=draw(st.sampled_from((1, 3))),
        side=draw(st.sampled_from((8, 16))),
        widths=draw(st.tuples(*[st.integers(1, 4)] * 3)),
    )
    dtype = draw(st.sampled_from(DTYPES))
    prefix = draw(st.sampled_from(PREFIXES))
    items = [(prefix + key, value) for key, value in model.state_dict().items()]
    items = draw(st.permutations(items))
    state_dict = collections.OrderedDict(
        (
            key,
            torch.randn(value.shape).to(dtype)
            if value.is_floating_point()
            else value + draw(st.integers(0, 9)),
        )
        for key, value in items
    )
    key = draw(st.sampled_from(CONTAINERS))
    if key is None:
        return state_dict, key, prefix
    extra = draw(
        st.dictionaries(
            st.sampled_from(("epoch", "acc", "optimizer", "note")),
            st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.just({"lr": [0.1]})),
        )
    )
    return {**extra, key: state_dict}, key, prefix


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return (
            type(first) is type(second)
            and list(first) == list(second)
            and all(same(value, second[key]) for key, value in first.items())
        )
    return bool(first == second)


@given(checkpoints())
def test_a_file_goes_through_both_conversions_unchanged(
    tmp_path_factory: Any, drawn: tuple[Any, str | None, str]
) -> None:
    content, key, prefix = drawn
    path: Path = tmp_path_factory.getbasetemp() / "round-trip.pth"
    torch.save(content, path)
    checkpoint = torch_io.read(path)
    assert (checkpoint.container_key, checkpoint.prefix) == (key, prefix)
    spec, variables = convert.from_torch(checkpoint.arrays)
    # As a run does it: through jax, in single precision.
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), variables)
    arrays = convert.to_torch(spec, variables, like=checkpoint.arrays)
    path.write_bytes(torch_io.encode(checkpoint, arrays))
    assert same(torch.load(path, weights_only=True), content)


@given(checkpoints())
def test_safetensors_go_through_both_conversions_unchanged(
    tmp_path_factory: Any, drawn: tuple[Any, str | None, str]
) -> None:
    content, key, prefix = drawn
    state_dict = content if key is None else content[key]
    path: Path = tmp_path_factory.getbasetemp() / "round-trip.safetensors"
    save_file(dict(state_dict), path, metadata={"format": "pt"})
    checkpoint = torch_io.read(path)
    assert (checkpoint.container_key, checkpoint.prefix) == (None, prefix)
    spec, variables = convert.from_torch(checkpoint.arrays)
    arrays = convert.to_torch(spec, variables, like=checkpoint.arrays)
    assert torch_io.encode(checkpoint, arrays) == path.read_bytes()


@given(checkpoints(), st.integers(0, 100))
def test_every_tensor_has_its_own_place(
    tmp_path_factory: Any, drawn: tuple[Any, str | None, str], which: int
) -> None:
    """Changing one Flax leaf changes one PyTorch tensor, and the other way back."""
    path: Path = tmp_path_factory.getbasetemp() / "place.pth"
    torch.save(drawn[0], path)
    checkpoint = torch_io.read(path)
    spec, variables = convert.from_torch(checkpoint.arrays)
    names = list(named_leaves(variables))
    name = names[which % len(names)]
    leaves, structure = jax.tree.flatten(variables)
    leaves[names.index(name)] = leaves[names.index(name)] + 1
    changed = convert.to_torch(spec, jax.tree.unflatten(structure, leaves), like=checkpoint.arrays)
    different = [key for key, array in checkpoint.arrays.items() if not np.array_equal(array, changed[key])]
    assert len(different) == 1
    found = named_leaves(convert.from_torch(changed).variables)[name]
    np.testing.assert_array_equal(found, leaves[names.index(name)].astype(changed[different[0]].dtype))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, (32, 32, 3)) for name in NAMES if name not in ("densenet161", "efficientnet_b3")),
        *((name, (60, 60, 1)) for name in ("small_vgg", "vgg11", "resnet18")),
        ("vit_b_16", (224, 224, 3)),
    ],
)
def test_a_new_file_says_what_network_it_is_of(name: str, shape: tuple[int, int, int]) -> None:
    spec = named(name, 10, shape)
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), spec.shapes())
    found = convert.from_torch(convert.to_torch(spec, zeros)).spec
    assert (found.module, found.name, found.any_size) == (spec.module, spec.name, spec.any_size)
