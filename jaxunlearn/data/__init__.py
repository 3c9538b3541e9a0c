"""Labelled images from the places where people keep them."""

from jaxunlearn.data.sources import LabelledImages, load, read_image
from jaxunlearn.data.splits import hold_out

__all__ = ["LabelledImages", "hold_out", "load", "read_image"]
