"""Reading the build of a network off the shapes in its state dict."""

import re
from collections.abc import Mapping
from typing import TypeAlias

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Shapes of a state dict's tensors by key: all that an architecture is recognised by."""


_NUMBER = re.compile(r"0|[1-9][0-9]{0,5}")  # as ``str`` writes it, so that keys can be made of it again


def numbers(shapes: Shapes, pattern: str) -> list[int]:
    """The numbers that stand where a pattern has its group, in order.

    Example:
      >>> numbers({"layer1.0.conv1.weight": (), "layer1.1.conv1.weight": ()}, r"layer1.(.+).conv1.weight")
      [0, 1]
    """
    found = (re.fullmatch(pattern, key) for key in shapes)
    return sorted({int(match[1]) for match in found if match and _NUMBER.fullmatch(match[1])})


def counts_from(first: int, found: list[int]) -> bool:
    """Whether numbers run from ``first`` without a gap, and there is one at all."""
    return bool(found) and found == list(range(first, first + len(found)))
