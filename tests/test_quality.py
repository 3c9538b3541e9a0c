"""Lint, format and types, and the wheel as a stranger installs it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import shop

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "tool", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)], ids=" ".join
)
def test_tools_find_nothing(tool: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_works_in_another_folder(tmp_path: Path) -> None:
    """Builds the wheel, installs it elsewhere, and runs the demonstration from there."""
    source, site, elsewhere = tmp_path / "source", tmp_path / "site", tmp_path / "elsewhere"
    source.mkdir()
    elsewhere.mkdir()
    for name in ("jaxunlearn", "converters"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    environment = {name: value for name, value in shop.environment().items() if name != "PYTHONPATH"}

    def run(*arguments: str, cwd: Path = elsewhere, **extra: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**environment, **extra},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), cwd=source)
    (wheel,) = tmp_path.glob("jaxunlearn-*.whl")
    run("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel))
    where = run("-c", "import jaxunlearn; print(jaxunlearn.__file__)", PYTHONPATH=str(site))
    assert Path(where.strip()).is_relative_to(site)
    run("-m", "jaxunlearn.ibau", "--demo", "--quiet", "--rounds", "1", "--out", "demo", PYTHONPATH=str(site))
    report = json.loads((elsewhere / "demo" / "report.json").read_text())
    assert report["before"]["asr"] > 0.9
    assert report["after"]["asr"] < 0.05
    assert report["after"]["acc"] > report["before"]["acc"] - 0.03
