"""Names for the arrays and functions that pass between the modules."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key, PyTree

Variables: TypeAlias = PyTree
"""Everything a network needs to run: trained parameters and, where it has them, running statistics."""

Images: TypeAlias = Float[Array | np.ndarray, "n h w c"]
"""Pixels, NHWC, in [0, 1]."""


@runtime_checkable
class ImageStore(Protocol):
    """Images that are read where they are indexed, for collections that do not fit into memory."""

    shape: tuple[int, ...]
    dtype: Any

    def __len__(self) -> int:
        """How many."""
        ...

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Some of them, as an array of pixels."""
        ...


AnyImages: TypeAlias = Float[Array | np.ndarray | ImageStore, "n h w c"]
"""Pixels as ``Images``, in memory or read batch by batch."""

Labels: TypeAlias = Integer[Array | np.ndarray, " n"]
"""Classes, as integers of any size."""
Logits: TypeAlias = Float[Array, "n classes"]
Probabilities: TypeAlias = Float[Array, "n classes"]
"""Of every class, in [0, 1], with the sum 1 of every row."""
Mask: TypeAlias = Bool[Array, " n"] | Float[Array, " n"]
Perturbation: TypeAlias = Float[Array, "h w c"]
Scalar: TypeAlias = Float[Array, ""]
PRNGKey: TypeAlias = Key[Array, ""]
Round: TypeAlias = Int[Array, ""] | np.integer
"""Rounds done."""
Number: TypeAlias = Any
"""A float in a setting that may be traced: JAX also rebuilds configs with tracers and placeholders inside."""

MatVec: TypeAlias = Callable[[PyTree], PyTree]
LinearSolve: TypeAlias = Callable[[MatVec, PyTree], PyTree]
"""``solve(matvec, b)`` returns (an approximation of) x with ``matvec(x) = b``."""


@runtime_checkable
class ApplyFn(Protocol):
    """A network as a pure function of its variables and of pixels.

    Returns the logits and a mapping that may hold ``features`` (penultimate activations) and, when
    ``train`` is true, ``batch_stats`` (the new running statistics).
    """

    def __call__(
        self, variables: Variables, images: Images, *, train: bool
    ) -> tuple[jax.Array, Mapping[str, Any]]:
        """Applies the network to a batch of images."""
        ...

    def __hash__(self) -> int:
        """Compiled programs are found again by the network they belong to."""
        ...
