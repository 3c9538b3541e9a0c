"""How a training set was divided, as a table that people can read, correct and give back."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from jaxunlearn._check import InputError, shown
from jaxunlearn.data.images import LabelledImages

PARTS = ("poisoned", "clean", "left out")

_ROW, _IMAGE, _LABEL, _PART = "row", "image", "label", "part"


def write_division(data: LabelledImages, parts: Iterable[str], **columns: Iterable[str]) -> bytes:
    """CSV (RFC 4180), a line for every image: its row in its source, what it is called there, its label and its part.

    Args:
      data: the images.
      parts: of each, one of ``PARTS``.
      columns: what else is known of each, by name.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([_ROW, _IMAGE, _LABEL, _PART, *columns])
    for index, (part, *others) in enumerate(zip(parts, *columns.values(), strict=True)):
        writer.writerow([data.rows[index], data.name_of(index), data.labels[index], part, *others])
    return buffer.getvalue().encode(errors="surrogateescape")  # names as the file system has them


def read_division(path: Path, data: LabelledImages) -> list[str]:
    """The part of every image, from a table that ``write_division`` wrote and somebody may have corrected.

    Only the columns ``row`` and ``part`` are needed, in any order; ``image`` (wherever its folder is) and ``label``
    must be those of the row where they are there, and all others are passed over.

    Raises:
      InputError: if it cannot be read, names other images or another part, or leaves an image out.
    """
    indices = {int(row): index for index, row in enumerate(data.rows)}
    parts: dict[int, str] = {}
    for number, line in _lines(path):
        where = f"{path}, line {number},"
        index = indices.get(_whole(line[_ROW]))
        if index is None:
            raise InputError(
                f"{where} is of row '{shown(line[_ROW], 40)}', which is not among the {len(indices)} images of "
                f"{data.origin}; give the table of a division of these images."
            )
        if index in parts:
            raise InputError(
                f"{where} is of row {data.rows[index]} once more; leave one line for every image."
            )
        for name, told in ((_IMAGE, data.name_of(index)), (_LABEL, str(data.labels[index]))):
            if Path(line.get(name, told)).name != Path(told).name:
                raise InputError(
                    f"{where} has the {name} '{shown(line[name])}' for row {data.rows[index]} and "
                    f"not '{shown(told)}'; give the table of a division of {data.origin}."
                )
        if line[_PART] not in PARTS:
            raise InputError(
                f"{where} has the part '{shown(line[_PART], 40)}', which is not one of {', '.join(PARTS)}."
            )
        parts[index] = line[_PART]
    if missing := [index for index in range(len(data.labels)) if index not in parts]:
        raise InputError(
            f"{path} has no line for {len(missing)} of the {len(data.labels)} images of {data.origin}, such as row "
            f"{data.rows[missing[0]]}; give every image a part."
        )
    for part in PARTS[:2]:
        if part not in parts.values():
            raise InputError(
                f"{path} has no image with the part {part}; some of {PARTS[0]} and some of {PARTS[1]} are needed."
            )
    return [parts[index] for index in range(len(data.labels))]


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The lines of a table and their numbers, each with the columns of the first one."""
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputError(f"The division {path} cannot be read ({error.strerror}); check the path.") from None
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        found = [(reader.line_num, line) for line in reader]
    except csv.Error as error:
        raise InputError(f"{path} is no table of comma-separated values ({error}); give one.") from None
    columns = reader.fieldnames or ()
    if not {_ROW, _PART} <= set(columns):
        raise InputError(
            f"{path} has the columns {', '.join(shown(name, 40) for name in columns) or 'of an empty file'}; a "
            f"division has {_ROW} and {_PART}."
        )
    for number, line in found:
        if None in line or None in line.values():
            raise InputError(f"{path}, line {number}, has not as many columns as the first one; mend it.")
    return found


def _whole(text: str) -> int:
    """The number that a text is; -1 if it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else -1
