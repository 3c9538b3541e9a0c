"""Weights that a network computes from other tensors (pruning, weight norm, spectral norm), computed for good.

The state dict of such a network holds the parts and not the weight. Here the weight takes their place,
with the very operations that PyTorch uses in evaluation mode.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from jaxunlearn._check import InputError

_PARTS = re.compile(
    r"(?P<weight>(?:.*[._])?(?:weight|bias))_(?P<part>orig|mask|g|v|u)"
    r"|(?P<module>(?:.*\.)?)parametrizations\.(?P<name>\w+)\.(?P<other>.+)"
)
_SHOWN = 4


class Materialised(NamedTuple):
    """A state dict of plain weights.

    Attributes:
      tensors: by key, each computed one at the place of its first part.
      notices: sentences on what was computed.
    """

    tensors: dict[str, Tensor]
    notices: tuple[str, ...]


def materialise(tensors: Mapping[str, Tensor]) -> Materialised:
    """Computes the weights that a state dict holds in parts.

    Raises:
      InputError: if parts are missing, unknown or do not fit.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    owners = {}
    for key, tensor in tensors.items():
        match = _PARTS.fullmatch(key)
        if match:
            owners[key] = match["weight"] or f"{match['module']}{match['name']}"
            parts.setdefault(owners[key], {})[match["part"] or match["other"]] = tensor
    plain: dict[str, Tensor] = {}
    done: dict[str, list[str]] = {}
    for key, tensor in tensors.items():
        weight = owners.get(key)
        if weight is None:
            plain[key] = tensor
        elif weight in tensors:
            raise InputError(
                f"The checkpoint holds both {weight} and {key}, from which it is computed; keep one."
            )
        elif weight not in plain:
            kind, plain[weight] = _compute(weight, parts[weight])
            done.setdefault(kind, []).append(weight)
    return Materialised(plain, tuple(_notice(kind, weights) for kind, weights in done.items()))


def _compute(weight: str, parts: Mapping[str, Tensor]) -> tuple[str, Tensor]:
    """A weight of its parts, and what kind of parts they are."""
    empty = [name for name, part in parts.items() if part.numel() == 0]
    if empty:  # on which torch's kernels divide by zero
        raise InputError(
            f"The checkpoint holds {weight} in parts without values ({', '.join(empty)}); the file is damaged, get an "
            "intact copy."
        )
    for kind, names, compute in _KINDS:
        if set(names) == set(parts):
            result = compute(*(parts[name] for name in names))
            if result is None:
                shapes = ", ".join(
                    f"{name} {tuple(parts[name].shape)} of {parts[name].dtype}" for name in names
                )
                raise InputError(f"The parts of {weight} ({kind}) do not fit one another: {shapes}.")
            return kind, result
    expected = "; ".join(f"{' + '.join(names)} for {kind}" for kind, names, _ in _KINDS)
    raise InputError(
        f"The checkpoint holds {weight} only as {', '.join(sorted(parts))}, from which it cannot be computed "
        f"(expected {expected}); remove the parametrisation in PyTorch and save again."
    )


def _pruned(original: Tensor, mask: Tensor) -> Tensor | None:
    return mask.to(original.dtype) * original if mask.shape == original.shape else None


def _weight_normed(scale: Tensor, direction: Tensor) -> Tensor | None:
    if not direction.is_floating_point() or scale.dtype != direction.dtype:
        return None
    if scale.dim() == 0:
        return torch._weight_norm(direction, scale, -1)
    for axis in range(direction.dim()):
        kept = [size if other == axis else 1 for other, size in enumerate(direction.shape)]
        if list(scale.shape) == kept:
            return torch._weight_norm(direction, scale, axis)
    return None


def _spectral_normed(original: Tensor, u: Tensor, v: Tensor) -> Tensor | None:
    # Output channels come first but in transposed convolutions, where they come second.
    if not original.is_floating_point() or {u.dtype, v.dtype} != {original.dtype}:
        return None
    if u.dim() != 1 or v.dim() != 1 or original.dim() < 2:
        return None
    for axis in (0, 1):
        if len(u) == original.shape[axis] and len(u) * len(v) == original.numel():
            matrix = original.movedim(axis, 0).reshape(len(u), -1)
            return original / torch.vdot(u, torch.mv(matrix, v))
    return None


_KINDS: tuple[tuple[str, tuple[str, ...], Callable[..., Tensor | None]], ...] = (
    ("pruning", ("orig", "mask"), _pruned),
    ("weight norm", ("g", "v"), _weight_normed),
    ("weight norm", ("original0", "original1"), _weight_normed),
    ("spectral norm", ("orig", "u", "v"), _spectral_normed),
    ("spectral norm", ("original", "0._u", "0._v"), _spectral_normed),
)


def _notice(kind: str, weights: list[str]) -> str:
    more = len(weights) - _SHOWN
    shown = ", ".join(weights[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return (
        f"{shown} came in parts ({kind}) and were computed from them; the written file holds plain weights, so load "
        f"it into the network without {kind}."
    )
