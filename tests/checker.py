"""The run-time type checker of the tests: beartype, with an int wherever a float is asked for."""

import inspect
from typing import Any

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def unchecked(fun: Any) -> Any:
    """A function without its run-time types, for arguments that are not of them."""
    return inspect.unwrap(fun)
