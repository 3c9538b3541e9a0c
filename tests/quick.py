"""Choosing which cases of a test run every time."""

from collections.abc import Iterable
from typing import Any

import pytest


def all_slow_but(quick: Any, cases: Iterable[Any]) -> list[Any]:
    """The cases of a parametrized test, of which all but one are slow."""
    return [case if case == quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]
