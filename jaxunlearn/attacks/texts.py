"""Triggers named by a short text: ``patch:size=4,offset=1,value=1``, ``image:trigger.png``."""

import functools
from pathlib import Path

import jax.numpy as jnp

from jaxunlearn._check import InputError
from jaxunlearn.attacks.triggers import Trigger, add_image, stamp_patch
from jaxunlearn.data import read_image


def parse_trigger(text: str) -> Trigger:
    """The trigger that a text names.

    Args:
      text: ``patch:size=4,offset=1,value=1`` (parts may be left out, these are the defaults) or
        ``image:FILE[,mask=FILE]``.

    Raises:
      InputError: if the text or a file cannot be used.
    """
    kind, _, rest = text.partition(":")
    if kind == "patch" and (patch := _patch(rest)) is not None:
        return patch
    if files := pictures_of(text):
        image, *mask = (jnp.asarray(read_image(file)) for file in files)
        return functools.partial(add_image, image=image, mask=mask[0] if mask else None)
    raise InputError(
        f"{text!r} names no trigger; expected patch:size=4,offset=1,value=1 (value in 0..1) or "
        "image:FILE[,mask=FILE]."
    )


def pictures_of(text: str) -> tuple[Path, ...]:
    """The files of the picture and of the mask, if there is one, that a trigger's text names; of a patch none.

    Example:
      >>> [str(file) for file in pictures_of("image:a.png,mask=b.png")]
      ['a.png', 'b.png']
    """
    picture, masked, mask = text.removeprefix("image:").partition(",mask=")
    if not text.startswith("image:") or not picture or bool(masked) != bool(mask):
        return ()
    return tuple(Path(name) for name in (picture, mask) if name)


def _patch(parts: str) -> Trigger | None:
    """The square that ``size=4,offset=1,value=1`` names; None if it names none."""
    try:
        pairs = [part.split("=") for part in parts.split(",") if part]
        given = dict(pairs)
        size, offset = int(given.pop("size", 4)), int(given.pop("offset", 1))
        value = float(given.pop("value", 1))
    except ValueError:
        return None
    if given or len(pairs) > len({name for name, _ in pairs}) or not 0 <= value <= 1:
        return None
    return functools.partial(stamp_patch, size=size, offset=offset, value=value)
