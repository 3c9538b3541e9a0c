"""Attacks that make test subjects: triggers as pure array functions, and the poisoned sets that they make."""

from jaxunlearn.attacks.attack import Attack, Keyed
from jaxunlearn.attacks.crafted import Surrogate, adversarial, interpolated, optimised_patch, robust
from jaxunlearn.attacks.poison import Poisoned, as_bytes, check_ratio, in_chunks, poison, rounded
from jaxunlearn.attacks.recipes import RECIPES, Recipe, Setting
from jaxunlearn.attacks.texts import parse_trigger, pictures_of
from jaxunlearn.attacks.triggers import (
    Trigger,
    add_image,
    add_sinusoid,
    blend,
    check_fits,
    fits,
    keep_pieces,
    quantize,
    smooth_pattern,
    stamp_patch,
    warp,
    warping_field,
)

__all__ = [
    "RECIPES",
    "Attack",
    "Keyed",
    "Poisoned",
    "Recipe",
    "Setting",
    "Surrogate",
    "Trigger",
    "add_image",
    "add_sinusoid",
    "adversarial",
    "as_bytes",
    "blend",
    "check_fits",
    "check_ratio",
    "fits",
    "in_chunks",
    "interpolated",
    "keep_pieces",
    "optimised_patch",
    "parse_trigger",
    "pictures_of",
    "poison",
    "quantize",
    "robust",
    "rounded",
    "smooth_pattern",
    "stamp_patch",
    "warp",
    "warping_field",
]
