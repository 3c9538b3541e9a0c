"""Labelled images from the places where people keep them."""

from jaxunlearn.data.images import LabelledImages, StoredImages
from jaxunlearn.data.pictures import read_arrays, read_image
from jaxunlearn.data.sources import Takes, check_class_names, classes_of, load
from jaxunlearn.data.splits import hold_out, keep_apart

__all__ = [
    "LabelledImages",
    "StoredImages",
    "Takes",
    "check_class_names",
    "classes_of",
    "hold_out",
    "keep_apart",
    "load",
    "read_arrays",
    "read_image",
]
