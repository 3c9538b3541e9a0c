"""The safetensors format, read and written without torch: a JSON header, then the tensors' bytes.

Written here because the order of the tensors has to survive, which the library's writer does not promise.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

_LARGEST_HEADER_BYTES = 100_000_000  # the format's own limit
_MOST_AXES = 8
_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class SafeTensors(NamedTuple):
    """The content of a file.

    Attributes:
      arrays: by key, in the header's order; they share the memory of the bytes.
      metadata: texts by name, or None.
    """

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str] | None


def decode(content: bytes | bytearray) -> SafeTensors:
    """Reads a file's bytes.

    Raises:
      ValueError: if they are not in the format; the message is half a sentence that says where.

    Example:
      >>> decode(encode({"w": np.arange(3.0)}, None)).arrays["w"].tolist()
      [0.0, 1.0, 2.0]
    """
    length = int.from_bytes(content[:8], "little")
    if length > min(len(content) - 8, _LARGEST_HEADER_BYTES):
        raise ValueError(f"its header claims {length} bytes of a file of {len(content)}")
    try:
        header = json.loads(content[8 : 8 + length].decode(), object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError("its header is nested without end") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError("its header is no JSON") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.pop("__metadata__", None)
    if metadata is not None and not _texts(metadata):
        raise ValueError("its metadata are not texts by name")
    data = memoryview(content)[8 + length :]
    arrays = {key: _array(key, entry, data) for key, entry in header.items()}
    spans = sorted(entry["data_offsets"] for entry in header.values())
    ends = [0, *(end for _, end in spans)]
    if [start for start, _ in spans] != ends[:-1] or ends[-1] != len(data):
        raise ValueError("its tensors overlap or leave holes")
    return SafeTensors(arrays, metadata)


def encode(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None) -> bytes:
    """The bytes of a file with these tensors, in this order."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for key, array in arrays.items():
        header[key] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the first tensor is aligned
    return b"".join([len(text).to_bytes(8, "little"), text, *(array.tobytes() for array in arrays.values())])


def _array(key: str, entry: Any, data: memoryview) -> np.ndarray:
    """One tensor as the header describes it."""
    shown = repr(key[:80])
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"its header does not describe {shown} by dtype, shape and data_offsets")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise ValueError(f"{shown} has the unknown type {str(entry['dtype'])[:20]!r}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"the shape or the offsets of {shown} are no list of sizes")
    if len(shape) > _MOST_AXES:  # before they are multiplied, which would take long
        raise ValueError(f"{shown} has {len(shape)} axes")
    start, end = offsets
    if not start <= end <= len(data) or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{shown} claims bytes that do not belong to its shape")
    if dtype == np.bool_ and not set(data[start:end]) <= {0, 1}:
        raise ValueError(f"{shown} holds truth values other than 0 and 1")
    return np.frombuffer(data[start:end], dtype).reshape(shape)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("its header names something twice")
    return entries
