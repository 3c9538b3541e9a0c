"""Invertible rules: which PyTorch tensor is which Flax leaf, and how the axes move.

A table of rules describes one network completely. Both directions are derived from it, so a conversion
that is right one way cannot be wrong the other way.
"""

from typing import NamedTuple

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
        """The tensor with Flax's axes."""
        return array if self.axes is None else np.ascontiguousarray(array.transpose(self.axes))

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """The inverse of ``to_flax``."""
        return array if self.axes is None else np.ascontiguousarray(array.transpose(np.argsort(self.axes)))

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that ``to_torch`` gives an array of this shape."""
        return shape if self.axes is None else tuple(shape[axis] for axis in np.argsort(self.axes))


OIHW_TO_HWIO = (2, 3, 1, 0)
OUT_IN_TO_IN_OUT = (1, 0)


def conv(torch: str, flax: str, *, bias: bool = True) -> list[Rule]:
    """Rules of a ``torch.nn.Conv2d`` and a ``flax.linen.Conv``."""
    kernel = Rule(f"{torch}.weight", f"params/{flax}/kernel", OIHW_TO_HWIO)
    return [kernel, *([Rule(f"{torch}.bias", f"params/{flax}/bias")] if bias else [])]


def linear(torch: str, flax: str, *, bias: bool = True) -> list[Rule]:
    """Rules of a ``torch.nn.Linear`` and a ``flax.linen.Dense``."""
    kernel = Rule(f"{torch}.weight", f"params/{flax}/kernel", OUT_IN_TO_IN_OUT)
    return [kernel, *([Rule(f"{torch}.bias", f"params/{flax}/bias")] if bias else [])]


def batch_norm(torch: str, flax: str) -> list[Rule]:
    """Rules of a ``torch.nn.BatchNorm2d`` and a ``jaxunlearn.models.layers.BatchNorm``."""
    return [
        Rule(f"{torch}.weight", f"params/{flax}/scale"),
        Rule(f"{torch}.bias", f"params/{flax}/bias"),
        Rule(f"{torch}.running_mean", f"batch_stats/{flax}/mean"),
        Rule(f"{torch}.running_var", f"batch_stats/{flax}/var"),
        Rule(f"{torch}.num_batches_tracked", None),
    ]
