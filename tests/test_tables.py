"""The README's table is what the committed results give."""

from pathlib import Path

from experiments import tables

README = Path(__file__).parents[1] / "README.md"


def test_the_table_of_the_readme_is_rendered_from_the_results() -> None:
    assert tables.render() in README.read_text()


def test_what_was_not_run_is_empty() -> None:
    missing = tables.Row("`none`", "ibau", "no such label", 5)
    lines = tables.render([tables.ROWS[1], missing]).splitlines()
    assert lines[-1].count("|  ") == len(tables.NAMES)
    assert "| before | | 84.6 / 98.1 / 1.7 |" in lines[2]
