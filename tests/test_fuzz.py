"""Hostile files through the readers, and the guard that watches them."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.fuzz_checkpoints import FAMILIES, campaign
from tests.quick import all_slow_but

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("files", all_slow_but(300, [300, 1000]))
def test_hostile_files(files: int, tmp_path: Path) -> None:
    summary = campaign(files, seed=1, keep=tmp_path)
    assert summary["failures"] == []
    assert summary["files"] == files
    assert summary["outcomes"].keys() == FAMILIES.keys()
    assert summary["outcomes"]["good"]["read"] > files / 33
    assert summary["peak_memory_mib"] < 4096


def test_the_guard_sees_what_must_not_happen(tmp_path: Path) -> None:
    program = """
import os, pathlib, sys
from experiments.fuzz_checkpoints import guard
events = guard(pathlib.Path(sys.argv[1]))
len(open("/dev/null").read())
os.close(os.open("/dev/null", os.O_RDONLY))
by_number = lambda: os.close(os.open("other", os.O_WRONLY | os.O_CREAT))
assert not events
for act in (lambda: os.system("true"), lambda: open("canary", "w"), lambda: exec("1"), by_number):
    events.clear()
    act()
    assert events, act
try:
    bytearray(5 * 2**30)
except MemoryError:
    print("guarded")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "guarded\n", done.stderr
