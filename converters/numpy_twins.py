"""What a BackdoorBench file may ask NumPy for, rebuilt by functions that can do nothing else.

``attack_result.pt`` holds NumPy integers, an index array and an indicator array. NumPy's own functions for
unpickling accept far more (object arrays, types with made-up layouts), so the reader is given these twins
under their names; ``value`` is what each stands for.
"""

import math
from typing import Any

import numpy as np

_MOST_AXES = 32  # more than any array of a checkpoint has
_CODES = {code: np.dtype(code) for code in ("i8", "i4", "f8", "f4", "b1", "u1")}


class TwinDtype:
    """Stands for ``numpy.dtype``: one of a few plain number types."""

    def __init__(self, code: str, *_: bool) -> None:
        """Takes the code of a plain type."""
        if not isinstance(code, str) or code not in _CODES:
            raise ValueError(f"an array of type {str(code)[:20]!r}; only plain numbers are read")
        self.value: np.dtype = _CODES[code]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Accepts what a plain type has and nothing else."""
        if state not in ((3, "<", None, None, None, -1, -1, 0), (3, "|", None, None, None, -1, -1, 0)):
            raise ValueError("a number type with a layout of its own")


class TwinArray:
    """Stands for ``numpy.ndarray``: a shape, a type, and bytes that fit them."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Builds the array."""
        version, shape, twin, by_columns, content = state
        plain = version == 1 and isinstance(twin, TwinDtype) and isinstance(content, bytes)
        if not plain or len(shape) > _MOST_AXES or not all(map(_is_size, shape)):
            raise ValueError("an array that is not plain numbers")
        if math.prod(shape) * twin.value.itemsize != len(content):
            raise ValueError("an array whose bytes do not fit its shape")
        flat = np.frombuffer(content, twin.value)
        self.value = np.array(flat.reshape(shape[::-1]).T if by_columns else flat.reshape(shape))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _twin_reconstruct(kind: type, *_: Any) -> TwinArray:
    if kind is not TwinArray:
        raise ValueError("an array of a class of its own")
    return TwinArray()


def _twin_scalar(twin: TwinDtype, content: bytes) -> np.generic:
    if not isinstance(twin, TwinDtype) or len(content) != twin.value.itemsize:
        raise ValueError("a number whose bytes do not fit its type")
    number: np.generic = np.frombuffer(content, twin.value)[0]
    return number


TWINS: tuple[tuple[Any, str], ...] = (
    (TwinDtype, "numpy.dtype"),
    (TwinArray, "numpy.ndarray"),
    *((_twin_reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("_core", "core")),
    *((_twin_scalar, f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
)
"""The allow-list for files that ask for NumPy: each twin, and the name under which it is asked for."""
