"""The few tree helpers that optax and jax.tree lack."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxunlearn._check import InputError
from jaxunlearn._typing import Number, Variables

T = TypeVar("T")


def settings(kind: type[T]) -> type[T]:
    """Makes a dataclass of settings a pytree: fields of the type ``Number`` are its leaves, the others its structure.

    Example:
      >>> @settings
      ... @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...     rate: Number
      ...     rounds: int
      >>> jax.tree.leaves(Config(0.1, 3))
      [0.1]
    """
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    numbers = [field.name for field in fields if field.type is Number]
    others = [field.name for field in fields if field.type is not Number]
    return jax.tree_util.register_dataclass(kind, numbers, others)


def trainable_mask(variables: Variables) -> PyTree:
    """Marks the leaves that unlearning may change.

    A mapping with a ``"params"`` entry (Flax's convention) has only that entry trained, which freezes
    running statistics; of any other tree, every floating-point leaf is trained.

    Example:
      >>> trainable_mask({"params": {"w": jnp.ones(2)}, "batch_stats": {"mean": jnp.zeros(2)}})
      {'batch_stats': {'mean': False}, 'params': {'w': True}}
    """
    if isinstance(variables, Mapping) and "params" in variables:
        return {
            name: jax.tree.map(lambda leaf, name=name: name == "params" and _floating(leaf), entry)
            for name, entry in sorted(variables.items())
        }
    return jax.tree.map(_floating, variables)


def _floating(leaf: object) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def partition(tree: PyTree, mask: PyTree) -> tuple[PyTree, PyTree]:
    """Splits a tree in two of the same shape, with None where the other half holds the leaf."""
    return (
        jax.tree.map(lambda keep, leaf: leaf if keep else None, mask, tree),
        jax.tree.map(lambda keep, leaf: None if keep else leaf, mask, tree),
    )


def combine(first: PyTree, second: PyTree) -> PyTree:
    """Undoes ``partition``."""
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None)


@jax.jit
def all_finite(tree: PyTree) -> jax.Array:
    """Whether every floating leaf is free of NaN and infinity, as a boolean scalar."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if _floating(leaf)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])) if leaves else jnp.array(True)


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves by their path, joined by slashes, in tree order.

    Example:
      >>> list(named_leaves({"a": {"b": jnp.ones(1)}, "c": jnp.ones(1)}))
      ['a/b', 'c']
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def head_kernel(variables: Variables, head: str, classes: int | None = None) -> str:
    """The path of the last linear layer's kernel.

    Args:
      variables: of a network.
      head: path of the layer, or of the kernel alone, inside ``variables["params"]`` (or inside the variables,
        where they have no such entry), joined by slashes. A submodule's own name may hold dots.
      classes: that the network tells apart, if known.

    Raises:
      InputError: if there is no such matrix, or it does not have one column for every class.

    Example:
      >>> head_kernel({"params": {"classifier.6": {"kernel": jnp.ones((4, 3))}}}, "classifier.6")
      'params/classifier.6/kernel'
    """
    leaves = named_leaves(variables)
    prefix = "params/" if isinstance(variables, Mapping) and "params" in variables else ""
    for name in (f"{prefix}{head}/kernel", f"{prefix}{head}"):
        if name in leaves and jnp.ndim(leaves[name]) == 2:
            shape = leaves[name].shape
            if classes not in (None, shape[1]):
                raise InputError(
                    f"head={head!r} is a matrix of shape {shape} and the network has {classes} classes, which must be "
                    "its last axis; transpose it, or name another layer."
                )
            return name
    matrices = [
        name.removeprefix(prefix).removesuffix("/kernel")
        for name, leaf in leaves.items()
        if name.startswith(prefix) and jnp.ndim(leaf) == 2
    ]
    raise InputError(
        f"head={head!r} names no linear layer; this network has {', '.join(matrices) or 'none'}."
    )
