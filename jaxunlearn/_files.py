"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxunlearn._check import InputError


def check_free(folder: Path, names: Iterable[str]) -> None:
    """Refuses a folder of results that holds files under the names of those to be written.

    Raises:
      InputError: if it does.
    """
    taken = [name for name in names if os.path.lexists(folder / name)]
    if taken:
        raise InputError(
            f"{folder} holds {', '.join(taken)} already, which would be replaced; give another --out, or --force to "
            "replace what is there."
        )


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name beside it and moves it into place."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes several files of a folder, the last of the mapping last: it marks the set as complete."""
    for name, content in contents.items():
        write_whole(folder / name, content)
