"""Tables of a division: written, corrected by hand, read back, and refused where they are of something else."""

from pathlib import Path

import numpy as np
import pytest

from jaxunlearn._check import InputError
from jaxunlearn.data import LabelledImages, read_division, write_division

PARTS = ["clean", "poisoned", "left out", "clean"]


def images(names: str = "shop/{}.png") -> LabelledImages:
    """Four images, rows 3, 5, 6 and 9 of their source."""
    labels = np.array([0, 1, 1, 0], np.int32)
    return LabelledImages(
        np.zeros((4, 2, 2, 1), np.float32), labels, "SPEC", np.array([3, 5, 6, 9]), names.format
    )


@pytest.mark.parametrize(
    "names", ['shop/a, "{}" \udcff.png', "shop/a\r{}.png", "shop/a\n{}.png", "shop/a\r\n{}"]
)
def test_what_is_written_is_read_back_from_anywhere(names: str, tmp_path: Path) -> None:
    """Names hold a comma, a quote, bytes that are no text, or ends of lines; the folder may have another path."""
    path = tmp_path / "division.csv"
    path.write_bytes(write_division(images(names), PARTS, score=["1", "-1", "0", "1"]))
    assert read_division(path, images(names)) == PARTS
    assert read_division(path, images(f"/elsewhere/{names}")) == PARTS


def test_only_rows_and_parts_are_needed_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("﻿note,part,row\r\n,clean,9\r\nsquare!,poisoned,5\r\n,left out,6\r\n,clean,3\r\n\r\n")
    assert read_division(path, images()) == PARTS


LINES = [
    "row,image,label,part",
    "3,3.png,0,clean",
    "5,5.png,1,poisoned",
    "6,6.png,1,clean",
    "9,9.png,0,clean",
]


@pytest.mark.parametrize(
    ("number", "line", "message"),
    [
        (0, "row;image;label;part", "has the columns row;image;label;part; a division has row and part"),
        (1, "4,4.png,0,clean", "line 2, is of row '4', which is not among the 4 images of SPEC"),
        (1, "-3,3.png,0,clean", "of row '-3', which is not"),
        (1, "3.0,3.png,0,clean", "of row '3.0', which is not"),
        (2, "3,3.png,0,poisoned", "line 3, is of row 3 once more"),
        (
            2,
            "5,6.png,1,poisoned",
            "line 3, has the image '6.png' for row 5 and not 'shop/5.png'; give the table of a division of SPEC",
        ),
        (2, "5,5.png,0,poisoned", "line 3, has the label '0' for row 5 and not '1'"),
        (2, "5,5.png,1,Poison\x1b", r"the part 'Poison\x1b', which is not one of poisoned, clean, left out"),
        (2, "5,5.png,1,clean", "has no image with the part poisoned"),
        (2, "", "has no line for 1 of the 4 images of SPEC, such as row 5"),
        (2, "5,5.png,1", "line 3, has not as many columns"),
        (2, "5,5.png,1,poisoned,?", "line 3, has not as many columns"),
        (2, '5,"5.png"x,1,poisoned', "is no table of comma-separated values"),
        (2, f"5,{'x' * 200_000},1,poisoned", "is no table of comma-separated values"),
    ],
)
def test_other_tables_are_refused_in_one_sentence(
    tmp_path: Path, number: int, line: str, message: str
) -> None:
    path = tmp_path / "division.csv"
    path.write_text("\n".join([*LINES[:number], line, *LINES[number + 1 :]]))
    with pytest.raises(InputError, match=r"\A[^\n]*\Z") as refused:
        read_division(path, images())
    assert message in str(refused.value)


def test_a_file_without_lines_or_none_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "division.csv"
    with pytest.raises(InputError, match="cannot be read"):
        read_division(path, images())
    path.touch()
    with pytest.raises(InputError, match="of an empty file"):
        read_division(path, images())
