"""The triggered test images that a BackdoorBench ``attack_result.pt`` names: paths and labels, nothing opened."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters import torch_io
from converters.torch_io import Facts
from jaxunlearn._check import InputError

_FOLDER = "bd_test_dataset"


@dataclass(frozen=True)
class AttackImage:
    """A triggered image.

    Attributes:
      path: of the picture, inside the folder of the file that names it.
      attack_label: the class that the attack forces.
      label: the true class.
    """

    path: Path
    attack_label: int
    label: int


@dataclass(frozen=True)
class Attack:
    """An attack as a file describes it.

    Attributes:
      facts: what the file says about the network and its data.
      images: the triggered test images, in the file's order.
    """

    facts: Facts
    images: tuple[AttackImage, ...]


def read_attack(path: Path) -> Attack:
    """Reads which triggered images belong to an attack.

    The paths in the file are those of the author's machine; the images are looked for beside the file, as
    ``bd_test_dataset/<original label>/<index>.png``.

    Raises:
      InputError: if the file names no images, or one that is missing or lies outside its folder.
    """
    checkpoint = torch_io.read(path)
    entries = _entries(checkpoint.content)
    if entries is None:
        raise InputError(
            f"{path} names no triggered images; give BackdoorBench's attack_result.pt, or describe the trigger."
        )
    folder = path.resolve().parent / _FOLDER
    return Attack(checkpoint.facts, tuple(_images(path, folder, entries)))


def _entries(content: Any) -> Mapping[Any, Any] | None:
    """The table of triggered images inside the content of a file."""
    for key in ("bd_test", "bd_data_container", "data_dict"):
        content = content.get(key) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) and content else None


def _images(path: Path, folder: Path, entries: Mapping[Any, Any]) -> Iterator[AttackImage]:
    seen = set()
    for index, entry in entries.items():
        stored = entry.get("path") if isinstance(entry, Mapping) else None
        labels = entry.get("other_info") if isinstance(entry, Mapping) else None
        if not isinstance(stored, str) or not isinstance(labels, (list, tuple)) or len(labels) != 2:
            raise InputError(
                f"{path}: entry {str(index)[:20]!r} of its triggered images is no path with two labels."
            )
        if not all(isinstance(label, (int, np.integer)) and 0 <= label < 2**31 for label in labels):
            raise InputError(f"{path}: the labels of {stored[:80]!r} are no class numbers.")
        picture = _located(path, folder, stored)
        if picture in seen:  # a small file could ask for one picture any number of times
            raise InputError(f"{path} names the image {stored[-80:]!r} twice; expected every image once.")
        seen.add(picture)
        yield AttackImage(picture, int(labels[0]), int(labels[1]))


def _located(path: Path, folder: Path, stored: str) -> Path:
    """Where a stored path points to beside the file."""
    parts = stored.replace("\\", "/").split("/")
    if parts[-3:-2] != [_FOLDER] or not {"", ".", ".."}.isdisjoint(parts[-2:]) or ".." in parts:
        raise InputError(
            f"{path} names the image {stored[:80]!r}; expected .../{_FOLDER}/<original label>/<index>.png."
        )
    if not stored.isprintable():
        raise InputError(f"{path} names an image with unprintable characters, {stored[:80]!r}.")
    found = folder.joinpath(*parts[-2:])
    try:
        inside = found.resolve(strict=True).is_relative_to(folder) and found.is_file()
    except (OSError, RuntimeError):  # missing, or links in a circle
        raise InputError(
            f"{path} names the image {'/'.join(parts[-3:])}, which is not beside it; keep the folder {_FOLDER} "
            "with the file."
        ) from None
    if not inside:
        raise InputError(f"{found} is no file inside {folder}; links that leave the folder are not followed.")
    return found
