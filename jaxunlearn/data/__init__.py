"""Labelled images from the places where people keep them."""

from jaxunlearn.data.divisions import PARTS, read_division, write_division
from jaxunlearn.data.images import LabelledImages, StoredImages
from jaxunlearn.data.pictures import read_arrays, read_image
from jaxunlearn.data.sources import Takes, check_class_names, classes_of, load
from jaxunlearn.data.splits import hold_out, keep_apart

__all__ = [
    "PARTS",
    "LabelledImages",
    "StoredImages",
    "Takes",
    "check_class_names",
    "classes_of",
    "hold_out",
    "keep_apart",
    "load",
    "read_arrays",
    "read_division",
    "read_image",
    "write_division",
]
