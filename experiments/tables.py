"""Renders the results of the reproductions as the table of the README.

Command   python -m experiments.tables
Time      a second

Every number is read from experiments/results/; means over the seeds that stand there, in percent.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
NAMES = {
    "badnets_8_02_ckpt.pth": "CIFAR-10 BadNets",
    "trojan_sq_2_02_ckpt.pth": "CIFAR-10 Trojan, square",
    "trojan_wm_2_02_ckpt.pth": "CIFAR-10 Trojan, watermark",
    "gtsrbbadnets_8_02_ckpt.pth": "GTSRB BadNets",
    "gtsrbtrojan_wm_2_02_ckpt.pth": "GTSRB Trojan, watermark",
}
METRICS = ("acc", "asr", "ra")


class Row(NamedTuple):
    """A line of the table: the method, its file of results, its label there, and how many images it had."""

    method: str
    file: str
    label: str
    images: int


ROWS = (
    Row("`finetune`", "finetune", "default images=2500 rounds=4", 2500),
    Row("`ibau --preset reference`", "ibau", "reference images=5000 rounds=3", 5000),
    Row("`ibau`", "ibau", "default images=5000 rounds=3", 5000),
    Row("`sau`", "sau", "default images=2500 rounds=4", 2500),
    Row("`sau --preset fast`", "sau", "fast images=2500 rounds=1", 2500),
    Row("`ulrl`", "ulrl", "default", 500),
)


def render(rows: Sequence[Row] = ROWS) -> str:
    """The table in Markdown; what was not run has an empty cell."""
    found = {row: _runs(row) for row in rows}
    lines = [
        f"| method | images | {' | '.join(NAMES.values())} |",
        f"|---|---|{'---|' * len(NAMES)}",
        f"| before | | {' | '.join(_before(found.values(), name) for name in NAMES)} |",
    ]
    for row, runs in found.items():
        cells = [_cell(runs.get(name, [])) for name in NAMES]
        images = f"{row.images:,}".replace(",", " ")
        lines.append(f"| {row.method} | {images} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _runs(row: Row) -> dict[str, list[dict[str, Any]]]:
    """The runs of a row by checkpoint, each with the rates before and after, and its seconds where they are known."""
    path = RESULTS / f"{row.file}_checkpoints.json"
    stored = json.loads(path.read_text()).get(row.label, {}) if path.exists() else {}
    return {name: [_ends(run) for run in seeds.values()] for name, seeds in stored.items()}


def _ends(run: Mapping[str, Any]) -> dict[str, Any]:
    if "rounds" not in run:
        return {"before": run["before"], "after": run["after"], "seconds": run.get("seconds")}
    seconds = [entry.get("seconds") for entry in run["rounds"]]
    total = None if None in seconds else sum(seconds)
    return {"before": run["before"], "after": run["rounds"][-1], "seconds": total}


def _before(found: Any, name: str) -> str:
    runs = next(runs[name] for runs in found if name in runs)
    return " / ".join(f"{100 * runs[0]['before'][key]:.1f}" for key in METRICS)


def _cell(runs: Sequence[Mapping[str, Any]]) -> str:
    if not runs:
        return ""
    rates = (100 * statistics.mean(run["after"][key] for run in runs) for key in METRICS)
    notes = [f"{len(runs)} seeds"] if len(runs) > 1 else []
    if all(run["seconds"] is not None for run in runs):
        notes.append(f"{statistics.median(run['seconds'] for run in runs):.0f} s")
    return " / ".join(f"{rate:.1f}" for rate in rates) + (f" ({', '.join(notes)})" if notes else "")


if __name__ == "__main__":
    sys.stdout.write(render())
