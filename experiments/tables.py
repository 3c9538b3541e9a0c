"""Renders results as tables in Markdown: of the published checkpoints, and of campaigns, these with a picture.

Command   python -m experiments.tables, to bring the README and docs/measured.md up to date
          python -m experiments.tables NAME, for experiments/results/NAME.jsonl, or FILE.jsonl, for another file;
          also writes a picture beside it
Time      a second

Every number is read from experiments/results/; means over the seeds that stand there, in percent. Runs of campaigns
that ``stopped`` early, at NaN or infinite values, stand there with their last good round. A page holds a table between
``<!-- table NAME -->`` and ``<!-- end -->``, where the NAME ``checkpoints`` is that of the published ones and
``summary`` that of all methods on all attacks, and shows pictures of campaigns as ``results/NAME.png``.
"""

import argparse
import json
import re
import statistics
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import summary
from experiments.campaigns import CAMPAIGNS, NOTHING, PUBLISHED_ASR
from experiments.summary import Line
from jaxunlearn import report
from jaxunlearn._check import InputError
from jaxunlearn._files import write_whole

RESULTS = Path(__file__).parent / "results"
PAGES = tuple(Path(__file__).parents[1] / name for name in ("README.md", "docs/measured.md"))
PICTURE = re.compile(r"results/([\w-]+)\.png")
NORM = re.compile(r"perturbation of norm ([\d.]+)")
TABLE = re.compile(r"(?<=<!-- table )([\w-]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
NAMES = {
    "badnets_8_02_ckpt.pth": "CIFAR-10 BadNets",
    "trojan_sq_2_02_ckpt.pth": "CIFAR-10 Trojan, square",
    "trojan_wm_2_02_ckpt.pth": "CIFAR-10 Trojan, watermark",
    "gtsrbbadnets_8_02_ckpt.pth": "GTSRB BadNets",
    "gtsrbtrojan_wm_2_02_ckpt.pth": "GTSRB Trojan, watermark",
}
METRICS = ("acc", "asr", "ra")
_NEEDED = {
    **dict.fromkeys(("data", "attack", "arch", "method", "preset"), str),
    **dict.fromkeys(("attack_settings", "settings", "training"), list),
    "before": dict | None,
    **dict.fromkeys(("seed", "clean", "train_images", "test_images"), int),
    "ratio": float | int,
}  # of a line, with their types
_SUMMARY = "summary"
_WRAPPED = 17  # letters of an attack's name that a picture's column has room for


class Row(NamedTuple):
    """A line of the table: the method, its file of results, its labels there, and how many images it had."""

    method: str
    file: str
    labels: tuple[str, ...]
    images: int


ROWS = (
    Row("`finetune`", "finetune", ("default images=2500 rounds=4",), 2500),
    Row(
        "`finetune --preset ft-sam`",
        "finetune",
        ("ft-sam images=2500 rounds=100", "ft-sam images=2500 rounds=50"),
        2500,
    ),
    Row("`ibau --preset reference`", "ibau", ("reference images=5000 rounds=3",), 5000),
    Row("`ibau`", "ibau", ("default images=5000 rounds=3",), 5000),
    Row("`ibau --set withhold=false`", "ibau", ("default images=5000 rounds=3 withhold=false",), 5000),
    Row("`ibau`, no distillation", "ibau", ("default images=5000 rounds=3 distillation=false",), 5000),
    Row("`sau --preset reference`", "sau", ("reference images=2500 rounds=100",), 2500),
    Row("`sau`", "sau", ("default images=2500 rounds=4",), 2500),
    Row("`sau --set withhold=false`", "sau", ("default images=2500 rounds=4 withhold=false",), 2500),
    Row("`sau`, no distillation", "sau", ("default images=2500 rounds=4 distillation=false",), 2500),
    Row("`sau --preset fast`", "sau", ("fast images=2500 rounds=1",), 2500),
    Row(
        "`sau --preset fast --set withhold=false`",
        "sau",
        ("fast images=2500 rounds=1 withhold=false",),
        2500,
    ),
    Row(
        "`sau --preset fast`, no distillation", "sau", ("fast images=2500 rounds=1 distillation=false",), 2500
    ),
    Row("`ulrl --preset reference`", "ulrl", ("reference images=500 rounds=40",), 500),
    Row("`ulrl`", "ulrl", ("default images=500 rounds=30",), 500),
)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a campaign's results; none if there is no such file.

    Raises:
      InputError: if one cannot be read.
    """
    try:
        texts = path.read_text().splitlines() if path.exists() else ()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} cannot be read as lines of text; give a file of results.") from None
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError(
                f"Line {number} of {path} is no JSON, as if it was not written to its end; remove it."
            ) from None
        if not isinstance(line, dict) or not all(
            isinstance(line.get(name), kind) for name, kind in _NEEDED.items()
        ):
            raise InputError(f"Line {number} of {path} is no result of a campaign; remove it.")
        lines.append(line)
    return lines


def render(rows: Sequence[Row] = ROWS) -> str:
    """The table in Markdown; what was not run has an empty cell, and a method that never was no row."""
    found = {row: _runs(row) for row in rows}
    lines = [
        f"| method | images | {' | '.join(NAMES.values())} |",
        f"|---|---|{'---|' * len(NAMES)}",
        f"| before | | {' | '.join(_before(found.values(), name) for name in NAMES)} |",
    ]
    for row, runs in found.items():
        if not runs:
            continue
        cells = [_cell(runs.get(name, [])) for name in NAMES]
        images = f"{row.images:,}".replace(",", " ")
        lines.append(f"| {row.method} | {images} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def filled(page: str) -> str:
    """A page whose tables are those of the results.

    Raises:
      FileNotFoundError: if a table is asked for of which there are no results.
    """
    return TABLE.sub(lambda found: found[1] + found[2] + _table(found[1]), page)


def _table(name: str) -> str:
    if name == "checkpoints":
        return render()
    if name == _SUMMARY:
        return _markdown(summary.table(_summarised()))
    path = _file_of(name)
    lines = read_lines(path)
    if not lines:
        made = f"; python -m experiments.reproduce {name} makes them" if name in CAMPAIGNS else ""
        raise FileNotFoundError(f"{path} holds no results{made}.")
    return render_campaign(lines)


def _file_of(name: str) -> Path:
    """The results of a campaign, by its name or in a file."""
    return Path(name) if name.endswith(".jsonl") else RESULTS / f"{name}.jsonl"


def _summarised() -> dict[str, list[dict[str, Any]]]:
    """The lines of the campaigns that the summary is of."""
    return {name: read_lines(_file_of(name)) for name in summary.GRIDS.values()}


def _redraw(name: str) -> None:
    """Writes the picture of a campaign, if it has results, or of the summary."""
    path = _file_of(name)
    if name == _SUMMARY:
        write_whole(path.with_suffix(".png"), summary.draw(_summarised()))
    elif lines := read_lines(path):
        write_whole(path.with_suffix(".png"), draw_campaign(lines))


def _runs(row: Row) -> dict[str, list[dict[str, Any]]]:
    """The runs of a row by checkpoint, each with the rates before and after, its seconds if known, and where it ran."""
    path = RESULTS / f"{row.file}_checkpoints.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    by_checkpoint = [entry for label in row.labels for entry in stored.get(label, {}).items()]
    return {name: [_ends(run) for run in seeds.values()] for name, seeds in by_checkpoint}


def _ends(run: Mapping[str, Any]) -> dict[str, Any]:
    rounds = run.get("rounds", [run])
    seconds = [entry.get("seconds") for entry in rounds]
    return {
        "before": run["before"],
        "after": rounds[-1] if "rounds" in run else run["after"],
        "seconds": None if None in seconds else sum(seconds),
        "device": run.get("device", "cpu").partition(",")[0],
    }


def _before(found: Any, name: str) -> str:
    runs = next(runs[name] for runs in found if name in runs)
    return " / ".join(f"{100 * runs[0]['before'][key]:.1f}" for key in METRICS)


def _cell(runs: Sequence[Mapping[str, Any]]) -> str:
    if not runs:
        return ""
    rates = (100 * statistics.mean(run["after"][key] for run in runs) for key in METRICS)
    notes = [f"{len(runs)} seeds"] if len(runs) > 1 else []
    for device, name in (("cpu", ""), ("gpu", " on a GPU")):
        seconds = [run["seconds"] for run in runs if run["device"] == device and run["seconds"] is not None]
        if seconds:
            notes.append(f"{statistics.median(seconds):.0f} s{name}")
            break
    return " / ".join(f"{rate:.1f}" for rate in rates) + (f" ({', '.join(notes)})" if notes else "")


_FEW = 6  # cleanings that the columns of a table have room for
_OF_MODEL = ("target", "arch", "train_images", "test_images", "training")


def render_campaign(lines: Sequence[Line]) -> str:
    """The tables of a campaign: what is left of every attack, what gave it away, and how training sets were divided.

    Where nothing was cleaned, what is published of the attacks stands beside what they reach.
    """
    cleanings = _grouped(_cleaned(lines), _cleaning)
    published = [] if cleanings else ["published ASR"]
    table = [["attack", "before", *published, *cleanings]]
    for attack, of_attack in _grouped(lines, _attack, _OF_MODEL).items():
        cells = [[line for line in cleaned if line in of_attack] for cleaned in cleanings.values()]
        row = [attack, _rates(of_attack, "before"), *(_published(of_attack[0]) for _ in published)]
        table.append([*row, *(_rates(cell, "after") for cell in cells)])
    if len(cleanings) > _FEW:  # too wide for a page
        table = [list(column) for column in zip(*table, strict=True)]
    return (
        _markdown(table)
        + _render_suspicions([line for line in lines if _suspicion(line)])
        + _render_divisions([line for line in lines if "precision" in line["evidence"]])
    )


def draw_campaign(lines: Sequence[Line]) -> bytes:
    """A PNG of ASR and ACC, in the mean over the seeds, of every attack before and after every cleaning."""
    attacks = _grouped(lines, _bare_attack, ("attack_settings", *_OF_MODEL))
    cleanings = _grouped(_cleaned(lines), _cleaning)
    rows = ["before", *cleanings]
    columns = [textwrap.fill(attack.replace(" %", "\N{NO-BREAK SPACE}%"), _WRAPPED) for attack in attacks]
    figure, panels = report.new_figure(
        1 + 0.08 * max(map(len, rows)) + 2 * 1.2 * len(columns),
        0.7 + 0.3 * len(rows) + 0.2 * max(1 + text.count("\n") for text in columns),
        columns=2,
    )
    for axes, rate, title in zip(panels, ("asr", "acc"), ("attack success", "accuracy"), strict=True):
        values = np.full((len(rows), len(attacks)), np.nan)
        for column, of_attack in enumerate(attacks.values()):
            values[0, column] = _percent(of_attack, "before", rate)
            for row, cleaned in enumerate(cleanings.values(), 1):
                if cell := [line for line in cleaned if line in of_attack]:
                    values[row, column] = _percent(cell, "after", rate)
        named = rows if axes is panels[0] else [""] * len(rows)
        draw_map(axes, values, named, columns, good=rate == "acc")
        axes.set_title(f"{title}, percent", fontsize=10)
    return report.to_png(figure)


def draw_map(
    axes: Any, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, good: bool
) -> None:
    """A map of percentages with their numbers, green where ``good`` ones are high; NaN stays empty."""
    axes.imshow(values, cmap="RdYlGn" if good else "RdYlGn_r", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            shade = "white" if not 12 < value < 88 else "black"  # both ends of the map are dark
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=shade)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)


def _cleaned(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if line["method"] != NOTHING]


def _attack(line: Line) -> str:
    settings = f" ({', '.join(line['attack_settings'])})" if line["attack_settings"] else ""
    return f"{line['data']} {line['attack']}{settings}, {100 * line['ratio']:g} %"


def _bare_attack(line: Line) -> str:
    return _attack({**line, "attack_settings": []})


def _cleaning(line: Line) -> str:
    return f"{_method(line)}, {line['clean'] or 'training set'}"


def _method(line: Line) -> str:
    preset = "" if line["preset"] == "default" else f" {line['preset']}"
    settings = f" ({', '.join(line['settings'])})" if line["settings"] else ""
    return f"{line['method']}{preset}{settings}"


def _grouped(
    lines: Sequence[Line], name: Callable[[Line], str], details: Sequence[str] = ()
) -> dict[str, list[Line]]:
    """The lines by name; details in which lines of one name differ are said behind it."""
    alike: dict[str, list[Line]] = {}
    for line in lines:
        alike.setdefault(name(line), []).append(line)
    groups: dict[str, list[Line]] = {}
    for text, members in alike.items():
        differing = [key for key in details if any(line[key] != members[0][key] for line in members)]
        for line in members:
            said = [f"{key.replace('_', ' ')} {_plain(line[key])}" for key in differing]
            groups.setdefault(", ".join([text, *said]), []).append(line)
    return groups


def _plain(value: Any) -> str:
    return (" ".join(value) or "none") if isinstance(value, list) else str(value)


def _percent(lines: Sequence[Line], when: str, rate: str) -> float:
    """A mean over the lines; ``before`` counts every model once, however often it was cleaned."""
    counted = {line["seed"]: line for line in lines}.values() if when == "before" else lines
    return 100 * statistics.mean(line[when][rate] for line in counted)


def _rates(lines: Sequence[Line], when: str) -> str:
    if not lines:
        return ""
    rates = " / ".join(f"{_percent(lines, when, rate):.1f}" for rate in METRICS)
    seeds = len({line["seed"] for line in lines})
    stopped = sum(bool(line.get("stopped")) for line in lines) if when == "after" else 0
    notes = [f"{seeds} seeds"] * (seeds > 1) + [f"{stopped} stopped"] * (stopped > 0)
    return rates + (f" ({', '.join(notes)})" if notes else "")


def _published(line: Line) -> str:
    """An attack's published success on PreAct-ResNet18, and its range; empty if there is none."""
    found = PUBLISHED_ASR.get((line["data"], line["attack"], line["ratio"]))
    if found is None:
        return ""
    lowest, on_preact, highest = found
    return f"{on_preact} ({lowest} to {highest})"


def _suspicion(line: Line) -> str:
    """The class that the evidence names, bold where it is the attack's, and how strongly; empty if it names none.

    Of perturbations that is their norm, the smaller the more suspicious, and where it is known by how many percent of
    the images they lead that towards the next class; of ULRL's classes it is the z-score.
    """
    evidence = line["evidence"]
    if evidence.get("class") is None or "precision" in evidence:
        return ""
    norm = NORM.search(evidence["sentence"])
    strength = norm[1] if norm else f"{max(evidence['z_scores']):.0f}" if "z_scores" in evidence else None
    if strength is None:
        return ""
    if "rival_share" in evidence:
        strength += f", {100 * (evidence['share_before'] - evidence['rival_share']):+.0f}"
    named = str(evidence["class"])
    right = evidence["class"] == line["target"] and "mode=all-to-all" not in line["attack_settings"]
    return f"{f'**{named}**' if right else named} ({strength})"


def _render_suspicions(lines: Sequence[Line]) -> str:
    if not lines:
        return ""
    cleanings = _grouped(lines, _cleaning)
    table = [["class named: norm and lead, or z-score", *cleanings]]
    for attack, of_attack in _grouped(lines, _attack, _OF_MODEL).items():
        cells = [[line for line in cleaned if line in of_attack] for cleaned in cleanings.values()]
        table.append([attack, *("; ".join(map(_suspicion, cell)) for cell in cells)])
    return "\n" + _markdown(table)


def _render_divisions(lines: Sequence[Line]) -> str:
    if not lines:
        return ""
    table = [["attack", "precision", "recall", "poisoned images taken for clean"]]
    several = len({_cleaning(line) for line in lines}) > 1

    def name(line: Line) -> str:
        return f"{_attack(line)}: {_method(line)}" if several else _attack(line)

    for attack, divided in _grouped(lines, name, _OF_MODEL).items():
        found = [line["evidence"] for line in divided]
        cells = [
            [one[name] for one in found if one[name] is not None]
            for name in ("precision", "recall", "leaked")
        ]
        precision, recall, leaked = (statistics.mean(values) if values else None for values in cells)
        shares = ["none found" if share is None else f"{100 * share:.1f}" for share in (precision, recall)]
        if 0 < len(cells[0]) < len(found):
            shares[0] += f" ({len(cells[0])} of {len(found)} seeds)"
        table.append([attack, *shares, f"{leaked:.0f}"])
    return "\n" + _markdown(table)


def _markdown(table: Sequence[Sequence[str]]) -> str:
    head, *rows = table
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Brings the pages up to date, or prints the tables of campaigns."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of campaigns, or files of results")
    flags = parser.parse_args(argv)
    try:
        for name in flags.names:
            sys.stdout.write(_table(name))
            _redraw(name)
        for page in () if flags.names else PAGES:
            text = filled(page.read_text())
            write_whole(page, text.encode())
            for name in PICTURE.findall(text):
                _redraw(name)
    except (FileNotFoundError, InputError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
