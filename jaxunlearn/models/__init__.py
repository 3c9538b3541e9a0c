"""Flax twins of the PyTorch networks that the converters know."""

from jaxunlearn.models.small_vgg import SmallVGG, small_vgg
from jaxunlearn.models.spec import ModelSpec

__all__ = ["ModelSpec", "SmallVGG", "small_vgg"]
