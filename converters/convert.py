"""Applies a table of rules in both directions and checks the result against the network it is for."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from converters.arch import Architecture, Shapes, architectures, by_family
from jaxunlearn._check import InputError
from jaxunlearn._tree import named_leaves
from jaxunlearn._typing import Variables
from jaxunlearn.models import ModelSpec, named

StateDict = Mapping[str, np.ndarray]

_DIFF_LINES = 12
_MOST_TENSORS = 4000


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

    Returns:
      The spec, and variables that share the memory of the arrays.

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
    keys = {architecture.canonical(key): key for key in state_dict}
    flat = {
        rule.flax: rule.to_flax(_widened(state_dict[keys[rule.torch]]))
        for rule in architecture.rules(_leaves(spec))
        if rule.flax is not None
    }
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
    architecture = by_family(spec.family)
    flat = named_leaves(variables)
    rules = architecture.rules(flat)
    arrays = {
        rule.torch: rule.to_torch(np.asarray(flat[rule.flax])) for rule in rules if rule.flax is not None
    }
    if like is None:
        return {
            architecture.spelled(spec, rule.torch): arrays.get(rule.torch, np.zeros((), np.int64))
            for rule in rules
        }
    names = {key: architecture.canonical(key) for key in like}
    return {
        key: _narrowed(arrays[names[key]], original) if names[key] in arrays else original
        for key, original in like.items()
    }


def canonical(spec: ModelSpec, key: str) -> str:
    """The name that the twin has for a key of a state dict."""
    return by_family(spec.family).canonical(key)


def recognise(shapes: Shapes) -> tuple[Architecture, ModelSpec]:
    """Finds the architecture whose keys are exactly these and whose shapes fit.

    Raises:
      InputError: if there is none; the message ends with the difference to the nearest.
    """
    if len(shapes) > _MOST_TENSORS:
        raise InputError(
            f"The checkpoint holds {len(shapes)} tensors, and no supported network has more than {_MOST_TENSORS}; "
            "give a checkpoint of a supported architecture."
        )
    for key, shape in shapes.items():
        if 0 in shape:
            raise InputError(
                f"The checkpoint's {key} is empty, of shape {shape}; no supported network has layers without weights, "
                "so get an intact copy."
            )
    for architecture in architectures():
        spec = architecture.read(shapes)
        if spec is not None:
            break
    else:
        raise _unknown(shapes)
    if isinstance(spec, str):
        raise InputError(
            f"The tensors are named like {architecture.family}, but {spec}. Give a checkpoint of a supported "
            "architecture."
        )
    try:
        _leaves(spec)
    except (
        ArithmeticError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:  # from JAX and the network
        raise InputError(
            f"The tensors are named like {spec.name} but have shapes that make no network; check that the file is "
            "complete and unchanged."
        ) from error
    expected = _expected(architecture, spec)
    found = {architecture.canonical(key): shape for key, shape in shapes.items()}
    if len(found) < len(shapes):
        raise InputError(
            f"The checkpoint names tensors of {spec.name} twice, in two conventions; keep one of them."
        )
    # Files from before PyTorch 0.4.1 do not count batches.
    wrong = [key for key, shape in expected.items() if found.get(key) != shape and not _is_counter(key)]
    if wrong or found.keys() - expected.keys():
        raise InputError(
            f"The tensors are named like {spec.name} but do not have its shapes; check that the file is complete "
            f"and unchanged (+ in the file, - expected).\n{_difference(found, expected)}"
        )
    return architecture, spec


def _unknown(shapes: Shapes) -> InputError:
    """What to say of keys that are no known architecture's."""
    examples = [(a, named(a.example, classes=10)) for a in architectures() if a.example is not None]

    def likeness(pair: tuple[Architecture, ModelSpec]) -> float:
        keys = {pair[0].canonical(key) for key in shapes}
        expected = _expected(*pair).keys()
        return len(keys & expected) / len(keys | expected)

    architecture, nearest = max(examples, key=likeness)
    families = ", ".join(reversed([known.family for known in architectures()]))
    found = {architecture.canonical(key): () for key in shapes}
    return InputError(
        f"The checkpoint's {len(shapes)} tensors fit no known architecture ({families}); the nearest is "
        f"{nearest.name}, which differs in these keys (+ only in the file, - only in {nearest.name}).\n"
        f"{_difference(found, dict.fromkeys(_expected(architecture, nearest), ()))}"
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
    """The array in the original's dtype, infinite where too large; double precision is kept where nothing changed."""
    same = array == original.astype(array.dtype)
    with np.errstate(over="ignore"):
        return np.where(same, original, array.astype(original.dtype))


@functools.lru_cache(maxsize=64)
def _leaves(spec: ModelSpec) -> dict[str, Any]:
    """The leaves that a network has, by path; traced once."""
    return named_leaves(spec.shapes())


def _expected(architecture: Architecture, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The shapes that a state dict of this network has, by canonical key."""
    leaves = _leaves(spec)
    rules = architecture.rules(leaves)
    left_out = leaves.keys() - {rule.flax for rule in rules}
    if left_out:
        raise ValueError(f"the rules of {architecture.family} leave out {', '.join(sorted(left_out))}.")
    return {
        rule.torch: () if rule.flax is None else rule.torch_shape(leaves[rule.flax].shape) for rule in rules
    }


def _nested(flat: Mapping[str, np.ndarray]) -> dict[str, Variables]:
    tree: dict[str, Variables] = {}
    for path, array in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = array
    return tree


def _is_counter(key: str) -> bool:
    return key.endswith(".num_batches_tracked")
