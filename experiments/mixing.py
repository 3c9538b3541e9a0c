"""What DAU makes of parts that hold each other's images: complementary loss against gradient ascent, and measures.

Command   python -m experiments.mixing
Data      scikit-learn's digits; a hundred of a thousand carry a white square and the label 0
Hardware  one CPU core; about five minutes per seed
Expected  the numbers and the pictures in experiments/results/mixing*; nothing is published

The parts are the true ones, but for a share of the poisoned images that lies in the clean part, and a share of the
clean ones that lies in the poisoned part. Ten epochs of unlearning by the default settings, without stopping early.
With the true parts and with the largest share of both in the wrong part, each loss is measured with every lambda of
``WEIGHTS``. The other shares are measured with one for all seeds: that which, with the true parts, gives most triggered
images of ``demo.CLEAN`` their own class back. Results are those of ``demo.TEST``; neither set is learned. With the
largest share of both in the wrong part, the complementary loss is also measured with each of ``MEASURES``; of these
``FOUND`` takes the division that DAU makes by itself in place of the mixed parts, as a second division does, too.
"""

import argparse
import dataclasses
import functools
import itertools
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduction import add_result, made_by, rates, read_results
from experiments.tables import METRICS, draw_map
from jaxunlearn import cli, dau, demo, evaluate, report
from jaxunlearn._check import InputError
from jaxunlearn._files import write_whole
from jaxunlearn._runtime import keep_compilations
from jaxunlearn.attacks import parse_trigger
from jaxunlearn.data import LabelledImages, load

RESULTS = Path(__file__).parent / "results" / "mixing.json"
SHARES = (0.0, 0.01, 0.05, 0.1)
LOSSES = {"complementary": "complementary cross-entropy", "ascent": "gradient ascent"}
WEIGHTS = (1.0, 0.3, 0.1, 0.03, 0.01)
FOUND = "none of them, but the division that is found"
MEASURES: dict[str, dict[str, Any]] = {
    "the clean part's loss bounded for three epochs": {"robust_rounds": 3},
    "divided again before the fourth epoch": {"resplit_round": 4},
    "both (`robust`)": {"robust_rounds": 3, "resplit_round": 4},
    FOUND: {},
}
BEFORE, MADE_BY = "before", "made_by"
_CERTAIN = -9.0  # a score that gives an image of the poisoned part its whole weight

Rates = Mapping[str, Mapping[str, float]]
"""ACC, ASR and RA of one network, by the set that judged it: ``held_out`` or ``test``."""
Results = Mapping[str, Mapping[str, Rates]]
"""What was measured, by seed and by cell."""


class Cell(NamedTuple):
    """One unlearning.

    Attributes:
      loss: one of ``LOSSES``.
      weight: lambda, of the poisoned part's loss.
      leaked: share of the poisoned images that lies in the clean part.
      doubted: share of the clean images that lies in the poisoned part.
      measure: one of ``MEASURES``, or "".
    """

    loss: str
    weight: float
    leaked: float
    doubted: float
    measure: str = ""

    def __str__(self) -> str:
        """Its name in the file of results."""
        return f"{self.loss} {self.weight:g} {self.leaked:g} {self.doubted:g} {self.measure}".rstrip()


def weighed() -> list[Cell]:
    """Every weight of every loss, with the true parts and with the most mixed ones."""
    ends = (SHARES[0], SHARES[-1])
    return [Cell(loss, weight, end, end) for loss in LOSSES for weight in WEIGHTS for end in ends]


def mixed(weights: Mapping[str, float]) -> list[Cell]:
    """All shares with one weight for each loss, and the measures where the parts are mixed most."""
    most = Cell("complementary", weights["complementary"], SHARES[-1], SHARES[-1])
    return [
        *(
            Cell(loss, weights[loss], *shares)
            for loss in LOSSES
            for shares in itertools.product(SHARES, SHARES)
        ),
        *(most._replace(measure=name) for name in MEASURES),
    ]


def mean(results: Results, cell: Cell, rate: str, by: str = "test") -> float:
    """A rate of a cell in percent, in the mean over the seeds."""
    return 100 * statistics.mean(cells[str(cell)][by][rate] for cells in results.values())


def chosen(results: Results) -> dict[str, float]:
    """The weight of each loss that serves it best with the true parts, by the images that were held out."""
    return {
        loss: max(WEIGHTS, key=lambda weight: mean(results, Cell(loss, weight, 0, 0), "ra", "held_out"))
        for loss in LOSSES
    }


@functools.cache
def backdoored(seed: int) -> tuple[Rates, Callable[[Cell], Rates]]:
    """Trains the network of a seed.

    Args:
      seed: of the network, its poison, what lies in the wrong part, and the unlearning.

    Returns:
      Its rates, and what gives the rates of a cell.
    """
    *keys, unlearning_key = jax.random.split(jax.random.key(seed), 4)
    spec, variables, made = demo.learn_backdoor(keys)
    data, trigger = dau.Data(made.images, made.labels), parse_trigger(demo.TRIGGER)
    judges = {"held_out": load(demo.CLEAN), "test": load(demo.TEST)}
    method = dau.make_method(spec.apply, dau.Execution(), head=spec.head)
    rng = np.random.default_rng(seed)
    ranks = {group: rng.permutation(np.flatnonzero(made.poisoned == group)) for group in (True, False)}

    def judged(variables: Any) -> Rates:
        def by(images: LabelledImages) -> dict[str, float]:
            return rates(
                evaluate(
                    spec.apply, variables, images.images, images.labels, trigger=trigger, target=demo.TARGET
                )
            )

        return {name: by(images) for name, images in judges.items()}

    def unlearned(cell: Cell) -> Rates:
        swapped = np.zeros(len(made.labels), bool)
        for group, share in ((True, cell.leaked), (False, cell.doubted)):
            swapped[ranks[group][: round(share * len(ranks[group]))]] = True
        poisoned = jnp.asarray(made.poisoned ^ swapped)
        config = dataclasses.replace(
            dau.PRESETS["default"],
            batch_size=50,
            loss=cell.loss,
            unlearning_weight=cell.weight,
            forgotten=0.0,
        )
        config = dataclasses.replace(config, **MEASURES.get(cell.measure, {}))
        state = method.init(variables, data, config, unlearning_key)
        if cell.measure == FOUND:
            state, _ = method.step(state, data)
        else:
            state = state._replace(
                parts=dau.Parts(poisoned, ~poisoned),
                scores=jnp.where(poisoned, _CERTAIN, 0.0),
                round=jnp.asarray(1),
            )
        for _ in range(1, config.rounds):
            state, _ = method.step(state, data)
        return judged(method.finish(state))

    return judged(variables), unlearned


def measure(path: Path, seed: int, cells: Iterable[Cell]) -> None:
    """Adds those cells of a seed that the file lacks, each as soon as it is measured.

    Raises:
      InputError: if the file has cells of a network that came out otherwise.
    """
    known = read_results(path).get(str(seed), {})
    missing = [cell for cell in cells if str(cell) not in known]
    if not missing:
        return
    before, unlearned = backdoored(seed)
    if known.get(BEFORE, before) != before:
        raise InputError(
            f"{path} has cells of another network with seed {seed} (ACC / ASR / RA {_percent(known[BEFORE])}, and this "
            f"one {_percent(before)}), which another version or machine made; give another --out to measure all anew."
        )
    for cell in missing:
        known = {BEFORE: before, **known, str(cell): unlearned(cell)}
        print(f"seed {seed}, {cell}: ACC / ASR / RA {_percent(known[str(cell)])}", flush=True)
        add_result(path, (str(seed),), {MADE_BY: made_by(), **known})


def render(results: Results) -> str:
    """What the measures are worth, in percent over the seeds, as Markdown."""
    weight = chosen(results)["complementary"]
    most = Cell("complementary", weight, SHARES[-1], SHARES[-1])
    rows = {
        "true parts": most._replace(leaked=0.0, doubted=0.0),
        "mixed parts": most,
        **{f"mixed parts, {name}": most._replace(measure=name) for name in MEASURES},
    }
    lines = ["| parts | ACC | ASR | RA | highest ASR of a seed |", "| --- | --- | --- | --- | --- |"]
    for name, cell in rows.items():
        means = [mean(results, cell, rate) for rate in METRICS]
        highest = max(mean({seed: results[seed]}, cell, "asr") for seed in results)
        lines.append(f"| {name} | {' | '.join(f'{value:.1f}' for value in (*means, highest))} |")
    return "\n".join(lines) + "\n"


def draw_shares(results: Results) -> bytes:
    """A PNG of ASR and ACC in the mean over the seeds, a map for each loss."""
    figure, grid = report.new_figure(8.4, 7.4, columns=2, rows=2)
    labels = [f"{100 * share:g} %" for share in SHARES]
    weights = chosen(results)
    for row, (rate, title) in zip(grid, (("asr", "attack success"), ("acc", "accuracy")), strict=True):
        for axes, (loss, name) in zip(row, LOSSES.items(), strict=True):
            values = [
                [mean(results, Cell(loss, weights[loss], leaked, doubted), rate) for doubted in SHARES]
                for leaked in SHARES
            ]
            draw_map(axes, np.array(values), labels, labels, good=rate == "acc")
            axes.set_xlabel("clean images in the poisoned part")
            axes.set_ylabel("poisoned images in the clean part")
            axes.set_title(f"{name} ($\\lambda$ = {weights[loss]:g})\n{title}, percent", fontsize=10)
    return report.to_png(figure)


def draw_weights(results: Results) -> bytes:
    """A PNG of ASR and ACC over the weight, a line for the mean over the seeds and a dot for each."""
    figure, pair = report.new_figure(8.4, 3.8, columns=2)
    ends = (("true parts", SHARES[0], "-"), (f"{100 * SHARES[-1]:g} % of both swapped", SHARES[-1], "--"))
    for axes, (rate, title) in zip(pair, (("asr", "attack success"), ("acc", "accuracy")), strict=True):
        for colour, (loss, name) in zip(("tab:green", "tab:red"), LOSSES.items(), strict=True):
            for parts, end, style in ends:
                cells = [Cell(loss, weight, end, end) for weight in WEIGHTS]
                means = [mean(results, cell, rate) for cell in cells]
                axes.plot(WEIGHTS, means, style, color=colour, label=f"{name}, {parts}")
                for seed in results:
                    own = [mean({seed: results[seed]}, cell, rate) for cell in cells]
                    axes.plot(
                        WEIGHTS, own, "." if style == "-" else "x", color=colour, markersize=4, alpha=0.4
                    )
        axes.set_xscale("log")
        axes.set_xticks(WEIGHTS, [f"{weight:g}" for weight in WEIGHTS])
        axes.set_xticks([], minor=True)
        axes.set_ylim(-3, 103)
        axes.set_xlabel("weight $\\lambda$ of the poisoned part")
        axes.set_title(f"{title}, percent", fontsize=10)
    figure.legend(*pair[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return report.to_png(figure)


def main() -> int:
    """Measures the cells that are missing, writes the numbers and the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=cli.seed, nargs="+", default=list(range(6)))
    parser.add_argument(
        "--out", type=cli.path, default=RESULTS, help="numbers; the pictures are written beside them"
    )
    flags = parser.parse_args()
    keep_compilations()

    try:
        for seed in flags.seeds:
            measure(flags.out, seed, weighed())
        weights = chosen(read_results(flags.out))
        for seed in read_results(flags.out):
            measure(flags.out, int(seed), mixed(weights))
    except InputError as error:
        parser.error(str(error))
    results = read_results(flags.out)
    write_whole(flags.out.with_suffix(".png"), draw_shares(results))
    write_whole(flags.out.with_name(f"{flags.out.stem}-weights.png"), draw_weights(results))
    print(render(results))
    return 0


def _percent(rates: Rates) -> str:
    return " / ".join(f"{100 * rates['test'][rate]:.1f}" for rate in METRICS)


if __name__ == "__main__":
    sys.exit(main())
