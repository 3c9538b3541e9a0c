"""Applies a table of rules in both directions and checks the result against the network it is for."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from converters.arch import ARCHITECTURES, Architecture, Shapes, by_name
from jaxunlearn._check import InputError
from jaxunlearn._tree import named_leaves
from jaxunlearn._typing import Variables
from jaxunlearn.models import ModelSpec

StateDict = Mapping[str, np.ndarray]

_DIFF_LINES = 12


class Converted(NamedTuple):
    """A network read from a state dict.

    Attributes:
      spec: the architecture.
      variables: Flax variables, nested dicts of float arrays.
    """

    spec: ModelSpec
    variables: Variables


def from_torch(state_dict: StateDict) -> Converted:
    """Recognises the architecture of a state dict and converts it.

    Half-precision tensors are widened to float32, which loses nothing; ``to_torch`` narrows them again.

    Args:
      state_dict: arrays by PyTorch's key.

    Raises:
      InputError: if keys or shapes fit no known architecture; the message ends with the difference to the
        nearest one.

    Example:
      >>> import jax
      >>> from jaxunlearn.models import small_vgg
      >>> spec = small_vgg(10, (8, 8, 1))
      >>> from_torch(to_torch(spec, spec.init(jax.random.key(0)))).spec == spec
      True
    """
    shapes = {key: array.shape for key, array in state_dict.items()}
    architecture, spec = recognise(shapes)
    rules = [(rule, rule.flax) for rule in architecture.rules if rule.flax is not None]
    leaves = named_leaves(_shapes_of(spec))
    expected = {rule.torch: rule.torch_shape(leaves.pop(path).shape) for rule, path in rules}
    if leaves:
        raise ValueError(f"the rules of {architecture.name} leave out {', '.join(leaves)}.")
    found = {rule.torch: shapes[rule.torch] for rule, _ in rules}
    if found != expected:
        raise InputError(
            f"The tensors are named like {architecture.name} but do not have its shapes; check that the file "
            f"is complete (+ in the file, - expected).\n{_difference(found, expected)}"
        )
    flat = {path: rule.to_flax(_widened(state_dict[rule.torch])) for rule, path in rules}
    return Converted(spec, _nested(flat))


def to_torch(spec: ModelSpec, variables: Variables, like: StateDict | None = None) -> dict[str, np.ndarray]:
    """Converts variables back to a PyTorch state dict.

    Args:
      spec: the architecture.
      variables: as ``from_torch`` gives them.
      like: the state dict that the network came from; its order, dtypes and entries without a Flax twin
        (``num_batches_tracked``) are kept. Without it, float32, the table's order, and zero.

    Returns:
      Arrays by PyTorch's key.
    """
    flat = named_leaves(variables)
    arrays = {}
    for rule in by_name(spec.name).rules:
        if rule.flax is not None:
            arrays[rule.torch] = rule.to_torch(np.asarray(flat[rule.flax]))
        else:
            arrays[rule.torch] = like[rule.torch] if like is not None else np.zeros((), np.int64)
    if like is None:
        return arrays
    return {key: _narrowed(arrays[key], original) for key, original in like.items()}


def recognise(shapes: Shapes) -> tuple[Architecture, ModelSpec]:
    """Finds the architecture whose keys are exactly these and whose shapes fit."""
    near_miss = ""
    for architecture in ARCHITECTURES:
        if {rule.torch for rule in architecture.rules} == set(shapes):
            spec = architecture.spec(shapes)
            if isinstance(spec, ModelSpec):
                return architecture, spec
            near_miss = f"The tensors are named like {architecture.name}, but {spec}."
    if near_miss:
        raise InputError(f"{near_miss} Give a checkpoint of a supported architecture.")
    nearest = min(ARCHITECTURES, key=lambda a: len({rule.torch for rule in a.rules} ^ set(shapes)))
    names = {rule.torch: () for rule in nearest.rules}
    raise InputError(
        f"The checkpoint's {len(shapes)} tensors fit no known architecture "
        f"({', '.join(a.name for a in ARCHITECTURES)}); the nearest is {nearest.name}, which differs in these "
        f"keys (+ only in the file, - only in {nearest.name}).\n"
        f"{_difference(dict.fromkeys(shapes, ()), names)}"
    )


def _difference(found: Shapes, expected: Shapes) -> str:
    lines = [
        f"  + {key} {shape or ''}".rstrip() for key, shape in found.items() if expected.get(key) != shape
    ]
    lines += [
        f"  - {key} {shape or ''}".rstrip() for key, shape in expected.items() if found.get(key) != shape
    ]
    more = len(lines) - _DIFF_LINES
    return "\n".join(lines[:_DIFF_LINES] + ([f"  ... and {more} more"] if more > 0 else []))


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


def _narrowed(array: np.ndarray, original: np.ndarray) -> np.ndarray:
    """The array in the original's dtype; double precision is kept where nothing else changed."""
    same = array == original.astype(array.dtype)
    return np.where(same, original, array.astype(original.dtype))


def _shapes_of(spec: ModelSpec) -> Variables:
    return jax.eval_shape(spec.init, jax.random.key(0))


def _nested(flat: Mapping[str, np.ndarray]) -> dict[str, Variables]:
    tree: dict[str, Variables] = {}
    for path, array in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = array
    return tree
