"""Invertible rules: which PyTorch tensor is which Flax leaf, and how the axes move.

A table of rules describes one network completely. Both directions are derived from it, so a conversion
that is right one way cannot be wrong the other way. The table of a twin whose submodules carry PyTorch's names
is read off its variables.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Rule(NamedTuple):
    """One tensor under both of its names.

    Attributes:
      torch: key in the state dict.
      flax: path in the variables, joined by slashes; None for an entry that only travels along
        (``num_batches_tracked``) and goes back untouched.
      axes: transposition from PyTorch's axes to Flax's; None leaves the axes alone.
    """

    torch: str
    flax: str | None
    axes: tuple[int, ...] | None = None

    def to_flax(self, array: np.ndarray) -> np.ndarray:
        """A view of the tensor with Flax's axes."""
        return array if self.axes is None else array.transpose(self.axes)

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """The inverse of ``to_flax``, in PyTorch's order in memory."""
        return array if self.axes is None else np.ascontiguousarray(array.transpose(np.argsort(self.axes)))

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that ``to_torch`` gives an array of this shape."""
        return shape if self.axes is None else tuple(shape[axis] for axis in np.argsort(self.axes))


_KERNEL_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}  # convolutions OIHW to HWIO, linear layers (out, in) to (in, out)
_LEAF_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def named_alike(leaves: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The table of a network whose Flax submodules carry the names of their PyTorch twins.

    ``params/layer1.0/conv1/kernel`` is ``layer1.0.conv1.weight``. Kernels are transposed; every other leaf that
    PyTorch calls otherwise (``scale``, ``mean``, ``var``) is renamed, the rest keeps name and axes. A running mean
    brings ``num_batches_tracked`` along.

    Args:
      leaves: the network's leaves (or their shapes) by path.

    Example:
      >>> named_alike({"params/conv1/kernel": np.zeros((3, 3, 1, 8))})
      (Rule(torch='conv1.weight', flax='params/conv1/kernel', axes=(2, 3, 1, 0)),)
    """
    table = []
    for path, leaf in leaves.items():
        _, *modules, name = path.split("/")
        axes = _KERNEL_AXES[len(leaf.shape)] if name == "kernel" else None
        table.append(Rule(".".join([*modules, _LEAF_NAMES.get(name, name)]), path, axes))
        if name == "mean":
            table.append(Rule(".".join([*modules, "num_batches_tracked"]), None))
    return tuple(table)
