"""The architectures that the converters recognise, one table of rules each."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from converters.arch import small_vgg
from converters.rules import Rule
from jaxunlearn.models import ModelSpec

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of a state dict's tensors by key: all that an architecture is recognised by."""


class Architecture(NamedTuple):
    """How to recognise a network and convert it.

    Attributes:
      name: as shown to users.
      rules: the complete table of rules.
      spec: reads the ModelSpec off the shapes; returns a sentence instead when the keys fit and a shape
        does not.
    """

    name: str
    rules: tuple[Rule, ...]
    spec: Callable[[Shapes], ModelSpec | str]


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("small_vgg", tuple(small_vgg.rules()), small_vgg.spec),
)


def by_name(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
      KeyError: if there is none.
    """
    return {architecture.name: architecture for architecture in ARCHITECTURES}[name]
