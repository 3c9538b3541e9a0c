"""What a checkpoint file is and what is odd about it, without running it or judging it."""

import math
import statistics
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from converters import convert
from converters.torch_io import Checkpoint, as_single, is_finite
from jaxunlearn._check import InputError

Name = TypeVar("Name")

_SHOWN = 5
_TINY_SCALE = 1e-6
_OUTLIER = 6.0  # robust standard deviations
# The least standard deviation of a logarithm that is taken as ordinary.
_LAYER_SPREAD = 0.25
_ROW_SPREAD = 0.05
_FEWEST_TO_COMPARE = 5
_MAD_TO_SIGMA = 1.4826


def inspect(checkpoint: Checkpoint) -> dict[str, Any]:
    """Describes a checkpoint in plain values, ready for JSON."""
    arrays = checkpoint.arrays
    dtypes: dict[str, int] = {}
    for array in arrays.values():
        dtypes[str(array.dtype)] = dtypes.get(str(array.dtype), 0) + 1
    return {
        "container": checkpoint.kind,
        "bytes": checkpoint.size,
        "sha256": checkpoint.sha256,
        "globals": [ascii(name)[1:-1] for name in checkpoint.globals],
        "key": checkpoint.container_key,
        "prefix": checkpoint.prefix,
        "facts": {name: value for name, value in vars(checkpoint.facts).items() if value is not None},
        **_network(arrays),
        "tensors": len(arrays),
        "parameters": sum(array.size for key, array in arrays.items() if _is_parameter(key, array)),
        "dtypes": dtypes,
        "notices": list(checkpoint.notices),
        "suspicious": list(_suspicious(arrays)),
    }


def as_text(description: Mapping[str, Any]) -> str:
    """The description as aligned lines."""
    lines = []
    for name, value in description.items():
        values = value if isinstance(value, list) else [value]
        if isinstance(value, Mapping):
            values = [f"{key} {entry}" for key, entry in value.items()]
        elif name == "image_shape" and value:
            values = [" x ".join(map(str, value))]
        for row, entry in enumerate(values or ["-"]):
            label = name.replace("_", " ") if row == 0 else ""
            shown = f"{entry:,}".replace(",", " ") if isinstance(entry, int) else entry
            lines.append(f"{label:14}{'-' if shown in (None, '') else shown}")
    return "\n".join(lines) + "\n"


def _network(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The architecture, how sure it is, and what follows from it."""
    try:
        spec = convert.from_torch(arrays).spec
    except InputError as error:
        return {
            "architecture": None,
            "recognition": str(error).splitlines()[0],
            "assumed": [],
            "classes": None,
            "image_shape": None,
        }
    return {
        "architecture": spec.name,
        "recognition": "all names and shapes fit" + (", the rest is assumed" if spec.assumed else ""),
        "assumed": list(spec.assumed),
        "classes": spec.classes,
        "image_shape": list(spec.image_shape),
    }


def _is_parameter(key: str, array: np.ndarray) -> bool:
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return not key.endswith(buffers) and array.dtype.kind not in "iub"


def _suspicious(arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Sentences on what an ordinary trained network does not have."""
    arrays = {key: as_single(array) for key, array in arrays.items()}
    finite = {key: array for key, array in arrays.items() if is_finite(array)}
    for key in arrays.keys() - finite.keys():
        count = int(np.sum(~np.isfinite(arrays[key])))
        yield f"{key} holds {count} NaN or infinite values (in single precision)."
    floating = {
        key: array.astype(np.float32) for key, array in finite.items() if array.dtype.kind not in "iub"
    }
    yield from _dead(floating)
    # A filter's norm hardly depends on how many weights it has, so that layers can be compared.
    filters = {key: _row_norms(array) for key, array in floating.items() if array.ndim >= 2 and array.size}
    layers = {key: float(np.median(norms)) for key, norms in filters.items()}
    for key, distance in _outliers(layers, _LAYER_SPREAD):
        yield f"{key} has filters of an odd norm: {layers[key]:.3g} in the middle, {distance:.0f} deviations off."
    heads = [key for key in filters if floating[key].ndim == 2]
    if heads:
        rows = dict(enumerate(filters[heads[-1]].tolist()))
        for row, distance in _outliers(rows, _ROW_SPREAD):
            yield f"{heads[-1]} has an odd row for class {row}: norm {rows[row]:.3g}, {distance:.0f} deviations off."


def _row_norms(array: np.ndarray) -> np.ndarray:
    return np.linalg.norm(array.reshape(len(array), -1), axis=1)


def _dead(arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Layers, filters and normalisations that do nothing."""
    for key, array in arrays.items():
        if array.ndim >= 2 and array.size:
            filters = array.reshape(len(array), -1)
            constant = (
                np.flatnonzero(np.ptp(filters, axis=1) == 0) if filters.shape[1] > 1 else np.zeros(0, int)
            )
            if len(constant):
                zero = " (zero)" if not filters[constant].any() else ""
                yield f"{key} has {len(constant)} of {len(array)} filters constant{zero}: {_listed(constant)}."
        elif key.endswith("running_var") and array.size and array.min() <= 0:
            low = np.flatnonzero(array <= 0)
            yield f"{key} is zero or negative in {len(low)} of {array.size} channels: {_listed(low)}."
        elif key.endswith("weight") and array.ndim == 1 and array.size:
            low = np.flatnonzero(np.abs(array) < _TINY_SCALE)
            if len(low):
                yield f"{key} scales {len(low)} of {array.size} channels to nothing: {_listed(low)}."


def _outliers(values: Mapping[Name, float], least_spread: float) -> Iterator[tuple[Name, float]]:
    """Entries whose logarithm lies far from the others', in robust standard deviations."""
    logs = {name: math.log(value) for name, value in values.items() if value > 0}
    if len(logs) < _FEWEST_TO_COMPARE:
        return
    middle = statistics.median(logs.values())
    deviations = {name: abs(value - middle) for name, value in logs.items()}
    spread = max(_MAD_TO_SIGMA * statistics.median(deviations.values()), least_spread)
    for name, deviation in deviations.items():
        if deviation > _OUTLIER * spread:
            yield name, deviation / spread


def _listed(rows: np.ndarray) -> str:
    return ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
