"""Validators that say what was found, what was expected and what to do."""

import itertools
import math
from collections.abc import Collection
from typing import Any

import jax
import numpy as np

_SLACK = 1e-3  # of pixels that were computed


_MOST = 2**31 - 1  # what arrays on accelerators are counted with


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one sentence meant for the user."""


class DivergedError(InputError):
    """A training that makes an attack gave NaN or infinity; other settings are needed."""


def shown(text: object, most: int = 120) -> str:
    """A text from a file for a message: cut to so many characters, and those that do not print escaped.

    Example:
      >>> shown("a" + chr(27) + "[2J")
      'a\\\\x1b[2J'
    """
    cut = str(text)[:most]
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut)


def sides(shape: tuple[int, ...]) -> str:
    """A shape for a message.

    Example:
      >>> sides((32, 32, 3))
      '32x32x3'
    """
    return "x".join(map(str, shape))


def _concrete(value: object) -> bool:
    """Whether a value can be looked at: tracers and placeholders of tree transformations cannot.

    Raises:
      ValueError: if it is a text, which no number is.
    """
    if isinstance(value, str):
        raise ValueError(f"{value!r} is a text and has to be a number; leave the quotes away.")
    return isinstance(value, int | float | np.number)


def check_in(choices: Collection[str], **named: object) -> None:
    """Raises ValueError unless every named value is one of ``choices``."""
    for name, value in named.items():
        if value not in choices:
            raise ValueError(f"{name}={value!r} is not one of {', '.join(sorted(choices))}.")


def check_whole(minimum: int, **named: object) -> None:
    """Raises ValueError unless every named number is an integer of at least ``minimum`` and at most 2^31 - 1."""
    for name, value in named.items():
        if _concrete(value) and not (isinstance(value, int | np.integer) and value >= minimum):
            raise ValueError(f"{name}={value!r} must be a whole number of at least {minimum}.")
        if _concrete(value) and value > _MOST:  # type: ignore[operator]
            raise ValueError(f"{name}={shown(value)} must be at most {_MOST}.")
        if isinstance(value, np.integer) and value.itemsize < 4:
            raise ValueError(f"{name}={value!r} has too few bits to be counted with; give int({value}).")


def check_at_least(minimum: float, **named: object) -> None:
    """Raises ValueError unless every named number is finite and at least ``minimum``.

    Traced values pass: a setting that is swept by ``vmap`` has no single value to look at.
    """
    for name, value in named.items():
        if _concrete(value) and not (math.isfinite(value) and value >= minimum):  # type: ignore[arg-type,operator]
            raise ValueError(f"{name}={value!r} must be a finite number of at least {minimum}.")


def check_positive(*, finite: bool = True, **named: object) -> None:
    """Raises ValueError unless every named number is greater than zero and, as asked, finite."""
    for name, value in named.items():
        if _concrete(value) and not (value > 0 and (math.isfinite(value) or not finite)):  # type: ignore[operator,arg-type]
            kind = "finite number" if finite else "number"
            raise ValueError(f"{name}={value!r} must be a {kind} greater than 0.")


def check_order(**named: object) -> None:
    """Raises ValueError unless each named number is at least the one before it."""
    for (first, low), (second, high) in itertools.pairwise(named.items()):
        if _concrete(low) and _concrete(high) and not low <= high:  # type: ignore[operator]
            raise ValueError(f"{second}={high!r} must be at least {first}={low!r}.")


def check_fraction(**named: object) -> None:
    """Raises ValueError unless every named number is in [0, 1]."""
    for name, value in named.items():
        if _concrete(value) and not 0 <= value <= 1:  # type: ignore[operator]
            raise ValueError(f"{name}={value!r} must be at least 0 and at most 1.")


def check_share(**named: object) -> None:
    """Raises ValueError unless every named number is greater than zero and at most one."""
    for name, value in named.items():
        if _concrete(value) and not 0 < value <= 1:  # type: ignore[operator]
            raise ValueError(f"{name}={value!r} must be greater than 0 and at most 1.")


def _shape_and_dtype(value: object) -> tuple[tuple[int, ...], Any]:
    return tuple(getattr(value, "shape", ())), getattr(value, "dtype", object)


def check_images(images: object) -> None:
    """Raises ValueError unless images are floating NHWC, and in [0, 1].

    Pixels that are traced or read batch by batch pass unseen.
    """
    _check_array(images=images)
    shape, dtype = _shape_and_dtype(images)
    if len(shape) != 4 or not jax.numpy.issubdtype(dtype, jax.numpy.floating):
        raise ValueError(
            f"images has shape {shape} and dtype {dtype}; expected floating point pixels in [0, 1] of shape "
            "(images, height, width, channels)."
        )
    if shape[0] == 0:
        raise ValueError("images holds no image; at least one is needed.")
    if isinstance(images, np.ndarray | jax.Array) and not isinstance(images, jax.core.Tracer):
        with jax.ensure_compile_time_eval():  # inside a program as well
            least, most = float(images.min()), float(images.max())
        if math.isnan(least) or math.isnan(most):
            raise ValueError("images has pixels that are NaN; expected pixels in [0, 1].")
        if not (least >= -_SLACK and most <= 1 + _SLACK):
            raise ValueError(
                f"images has pixels from {least:g} to {most:g}; expected [0, 1], and networks that normalise for "
                "themselves (jaxunlearn.NORMALIZATIONS holds functions that do)."
            )


def _check_array(**named: object) -> None:
    for name, value in named.items():
        if isinstance(value, list | tuple):
            raise ValueError(
                f"{name} is a {type(value).__name__} and has to be an array; give np.asarray({name})."
            )


def check_images_and_labels(images: object, labels: object) -> None:
    """Raises ValueError unless images are floating NHWC, and in [0, 1], and labels are one integer per image.

    Pixels that are traced or read batch by batch pass unseen.
    """
    check_images(images)
    _check_array(labels=labels)
    shape = _shape_and_dtype(images)[0]
    label_shape, label_dtype = _shape_and_dtype(labels)
    if label_shape != shape[:1] or not jax.numpy.issubdtype(label_dtype, jax.numpy.integer):
        raise ValueError(
            f"labels has shape {label_shape} and dtype {label_dtype}; expected one integer for each of the "
            f"{shape[0]} images."
        )


def check_run(config: object, kind: type, key: object) -> None:
    """Raises ValueError unless a config is one of a method's own, and the key is a single one."""
    if not isinstance(config, kind):
        module = kind.__module__.removesuffix(".config")
        raise ValueError(
            f"config is a {type(config).__module__}.{type(config).__qualname__}; expected one of {module}, such as "
            f'{module}.PRESETS["default"].'
        )
    shape, dtype = _shape_and_dtype(key)
    typed = dtype is not object and jax.numpy.issubdtype(dtype, jax.dtypes.prng_key)
    if not (shape == () if typed else (shape == (2,) and dtype == np.uint32)):
        raise ValueError(f"key={key!r} is no random key; give a single one, such as jax.random.key(0).")


def check_crops(crop_padding: int, shape: tuple[int, ...]) -> None:
    """Raises InputError if random crops of images of a shape, NHWC, may be of nothing but padding."""
    if crop_padding >= min(shape[1:3]):
        raise InputError(
            f"crop_padding={crop_padding} is not less than a side of the images, which are {shape[1]}x{shape[2]}; give "
            "a smaller number, such as an eighth of it."
        )


def check_classes(labels: object, classes: int) -> None:
    """Raises ValueError unless all labels are in 0 to classes - 1; traced ones pass."""
    if isinstance(labels, jax.core.Tracer):
        return
    with jax.ensure_compile_time_eval():
        first, last = int(np.min(labels)), int(np.max(labels))  # type: ignore[call-overload]
    if first < 0 or last >= classes:
        raise ValueError(
            f"labels run from {first} to {last} and the network has the classes 0 to {classes - 1}; number the classes "
            "as in its training."
        )
