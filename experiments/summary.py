"""All methods beside each other: what each costs, and what it leaves of the backdoors that had formed.

A cell is the change of ACC in points, in the mean over the attacks, and the ASR that is left, in the mean and at most.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.campaigns import PUBLISHED
from jaxunlearn import report

Line = Mapping[str, Any]
"""What a campaign has measured of one model and one cleaning; see ``experiments.reproduce``."""

GRIDS = {(data, ratio): f"{data}-{100 * ratio:g}" for data, ratio in PUBLISHED}
"""The campaigns of all methods, by data and share of poison."""

FORMED = 1 / 3
"""ASR from which on a backdoor has formed."""

_METHODS = {
    "finetune": ("finetune", "#7f7f7f"),
    "finetune ft-sam": ("FT-SAM", "#bcbd22"),
    "ulrl": ("ULRL", "#d62728"),
    "sau": ("SAU", "#ff7f0e"),
    "ibau": ("I-BAU", "#1f77b4"),
    "dau": ("DAU", "#2ca02c"),
}
_TITLES = {"gtsrb": "GTSRB", "cifar10": "CIFAR-10"}
_SHARES = {20: "5 %", 100: "1 %"}  # the training set's number over that of the clean images


class Kind(NamedTuple):
    """What a row is of.

    Attributes:
      share: of the training set's number, that the clean images are; the training set itself, for DAU.
      method: a name of ``_METHODS``.
      settings: what it was measured with in place of its default.
    """

    share: str
    method: str
    settings: str

    def __str__(self) -> str:
        return f"{self.method}{f' ({self.settings})' * bool(self.settings)}, {self.share}"


def table(lines_of: Mapping[str, Sequence[Line]]) -> list[list[str]]:
    """The rows of the table, its head first.

    Args:
      lines_of: the lines of every campaign in ``GRIDS``, by its name.
    """
    grids = {key: _formed(lines_of[name]) for key, name in GRIDS.items()}
    kinds = sorted({_kind(line) for lines in grids.values() for line in lines}, key=_order)
    head = ["", *(f"{_TITLES[data]}, {100 * ratio:g} %" for data, ratio in grids)]
    before = [
        f"{len(formed := _attacks(lines))} of {len(_attacks(lines_of[GRIDS[key]]))}"
        + (f", ASR {_asr(formed, 'before'):.1f}" if formed else "")
        for key, lines in grids.items()
    ]
    rows = [[str(kind), *(_cell(lines, kind) for lines in grids.values())] for kind in kinds]
    return [head, ["backdoors that formed", *before], *rows, *_published()]


def draw(lines_of: Mapping[str, Sequence[Line]]) -> bytes:
    """A PNG of the same runs one by one: what is left of the ASR over the change of ACC.

    Where a method's default was not run, what was run in its place.
    """
    figure, panels = report.new_figure(10, 4.2, columns=len(_TITLES))
    for axes, (data, title) in zip(panels, _TITLES.items(), strict=True):
        formed = [
            line
            for key, name in GRIDS.items()
            if key[0] == data
            for line in _nearest_to_defaults(_formed(lines_of[name]))
        ]
        for method, (label, colour) in _METHODS.items():
            for share in (*_SHARES.values(), "training set"):
                runs = [
                    (100 * (line["after"]["acc"] - line["before"]["acc"]), 100 * line["after"]["asr"])
                    for line in formed
                    if _kind(line)[:2] == (share, method)
                ]
                hollow = share == _SHARES[100]
                axes.scatter(
                    [change for change, _ in runs],
                    [left for _, left in runs],
                    s=28,
                    facecolors="none" if hollow else colour,
                    edgecolors=colour,
                    marker="D" if method == "dau" else "o",
                    label=f"{label}, {share}",
                    alpha=0.9,
                )
        axes.set_title(title, fontsize=10)
        axes.set_yscale("symlog", linthresh=1, linscale=0.4)
        axes.set_yticks([0, 1, 3, 10, 30, 100], ["0", "1", "3", "10", "30", "100"])
        axes.set_ylim(-0.15, 130)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_xlabel("change of ACC, points")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("ASR that is left, percent")
    shown = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        if len(handle.get_offsets())
    }
    figure.legend(shown.values(), shown, loc="outside right center", fontsize=8)
    return report.to_png(figure)


def _formed(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if line["before"]["asr"] >= FORMED]


def _nearest_to_defaults(lines: Sequence[Line]) -> list[Line]:
    """One line of every attack, method and number of clean images: that of the default, if there is one."""
    ordered = sorted(lines, key=lambda line: len(line["settings"]), reverse=True)
    return list({(line["attack"], line["seed"], *_kind(line)[:2]): line for line in ordered}.values())


def _attacks(lines: Sequence[Line]) -> list[Line]:
    """One line of every attack."""
    return list({line["attack"]: line for line in lines}.values())


def _asr(lines: Sequence[Line], when: str) -> float:
    return 100 * statistics.mean(line[when]["asr"] for line in lines)


def _kind(line: Line) -> Kind:
    method = "finetune ft-sam" if line["preset"].startswith("ft-sam") else line["method"]
    share = _SHARES[line["train_images"] // line["clean"]] if line["clean"] else "training set"
    return Kind(share, method, ", ".join(line["settings"]))


def _order(kind: Kind) -> tuple[int, int, str]:
    shares = (*_SHARES.values(), "training set")
    return shares.index(kind.share), list(_METHODS).index(kind.method), kind.settings


def _cell(lines: Sequence[Line], kind: Kind) -> str:
    runs = [line for line in lines if _kind(line) == kind]
    if not runs:
        return ""
    change = 100 * statistics.mean(line["after"]["acc"] - line["before"]["acc"] for line in runs)
    most = 100 * max(line["after"]["asr"] for line in runs)
    attacks, all_attacks = len(_attacks(runs)), len(_attacks(lines))
    part = f"; {attacks} of {all_attacks}" if attacks < all_attacks else ""
    return f"{change:+.1f} / {_asr(runs, 'after'):.1f} ({most:.1f}{part})"


def _published() -> list[list[str]]:
    """What BackdoorBench's leaderboard has of the same, in the mean over its attacks."""
    rows = {"fine-tuning, as published": 1, "I-BAU, as published": 2}
    return [
        [
            f"{name}, {_SHARES[20]}",
            *(f"{found[row][0] - found[0][0]:+.1f} / {found[row][1]:.1f}" for found in PUBLISHED.values()),
        ]
        for name, row in rows.items()
    ]
