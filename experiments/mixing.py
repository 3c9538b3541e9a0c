"""What DAU makes of parts that hold each other's images: complementary loss against gradient ascent, and measures.

Command   python -m experiments.mixing
Data      scikit-learn's digits; a hundred of a thousand carry a white square and the label 0
Hardware  two CPU cores; about four minutes per seed
Expected  the numbers and the picture in experiments/results/mixing.*; nothing is published

The parts are the true ones, but for a share of the poisoned images that lies in the clean part, and a share of the
clean ones that lies in the poisoned part. Ten epochs of unlearning by the default settings, without stopping early;
but each loss has the weight lambda of ``WEIGHTS`` at which ACC - ASR is highest with the true parts. Weights are
chosen on ``demo.CLEAN``, and everything else is measured on ``demo.TEST``; neither is learned. With the largest share
of both in the wrong part, the complementary loss is also measured with each of ``MEASURES``.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduction import rates, read_results
from experiments.tables import METRICS, draw_map
from jaxunlearn import dau, demo, evaluate, report
from jaxunlearn._files import write_whole
from jaxunlearn._runtime import keep_compilations
from jaxunlearn.attacks import parse_trigger
from jaxunlearn.data import LabelledImages, load

RESULTS = Path(__file__).parent / "results" / "mixing.json"
SHARES = (0.0, 0.01, 0.05, 0.1)
LOSSES = {"complementary": "complementary cross-entropy", "ascent": "gradient ascent"}
WEIGHTS = (1.0, 0.3, 0.1, 0.03, 0.01)
MEASURES: dict[str, dict[str, int]] = {
    "the clean part's loss bounded for three epochs": {"robust_rounds": 3},
    "divided again before the fourth epoch": {"resplit_round": 4},
    "both (`robust`)": {"robust_rounds": 3, "resplit_round": 4},
}
_CERTAIN = -9.0  # a score that gives an image of the poisoned part its whole weight


def key_of(loss: str, leaked: float, doubted: float) -> str:
    """The name of a cell in the file of results."""
    return f"{loss} {leaked:g} {doubted:g}"


def measure_key_of(name: str) -> str:
    """The name, in the file of results, of a measure's cell."""
    return f"{key_of('complementary', SHARES[-1], SHARES[-1])} {name}"


def run(seed: int, known: Mapping[str, Any]) -> dict[str, Any]:
    """ACC, ASR and RA of every cell, by loss, leaked share and share of clean images taken for poisoned.

    Args:
      seed: of the network, its poison and the unlearning.
      known: cells that were measured before, which are not measured again.
    """
    *keys, unlearning_key = jax.random.split(jax.random.key(seed), 4)
    spec, variables, made = demo.learn_backdoor(keys)
    data, held_out, test = dau.Data(made.images, made.labels), load(demo.CLEAN), load(demo.TEST)
    trigger = parse_trigger(demo.TRIGGER)
    method = dau.make_method(spec.apply, dau.Execution(), head=spec.head)
    rng = np.random.default_rng(seed)
    ranks = {group: rng.permutation(np.flatnonzero(made.poisoned == group)) for group in (True, False)}

    def judged(variables: Any, by: LabelledImages) -> dict[str, float]:
        return rates(
            evaluate(spec.apply, variables, by.images, by.labels, trigger=trigger, target=demo.TARGET)
        )

    def unlearned(loss: str, weight: float, leaked: float, doubted: float, **settings: int) -> Any:
        swapped = np.zeros(len(made.labels), bool)
        for group, share in ((True, leaked), (False, doubted)):
            swapped[ranks[group][: round(share * len(ranks[group]))]] = True
        poisoned = jnp.asarray(made.poisoned ^ swapped)
        config = dataclasses.replace(
            dau.PRESETS["default"],
            batch_size=50,
            loss=loss,
            unlearning_weight=weight,
            forgotten=0.0,
            **settings,
        )
        state = method.init(variables, data, config, unlearning_key)
        state = state._replace(
            parts=dau.Parts(poisoned, ~poisoned),
            scores=jnp.where(poisoned, _CERTAIN, 0.0),
            round=jnp.asarray(1),
        )
        for _ in range(1, config.rounds):
            state, _ = method.step(state, data)
        return method.finish(state)

    cells = dict(known) or {"before": judged(variables, test)}

    def measure(name: str, *cell: Any, **settings: int) -> None:
        if name not in cells:
            cells[name] = judged(unlearned(*cell, **settings), test)
            print(seed, name, cells[name], flush=True)

    best = {}
    for loss in LOSSES:
        by_weight = f"{loss} by weight"
        if by_weight not in cells:
            cells[by_weight] = {
                str(weight): judged(unlearned(loss, weight, 0, 0), held_out) for weight in WEIGHTS
            }
        apart = cells[by_weight]
        best[loss] = max(WEIGHTS, key=lambda weight: apart[str(weight)]["acc"] - apart[str(weight)]["asr"])
    for loss, leaked, doubted in itertools.product(LOSSES, SHARES, SHARES):
        measure(key_of(loss, leaked, doubted), loss, best[loss], leaked, doubted)
    most = ("complementary", best["complementary"], SHARES[-1], SHARES[-1])
    for name, settings in MEASURES.items():
        measure(measure_key_of(name), *most, **settings)
    return cells


def render(results: Mapping[str, Any]) -> str:
    """What the measures are worth, in the mean over the seeds in percent, as Markdown."""
    rows = {
        "true parts": key_of("complementary", 0, 0),
        "mixed parts": key_of("complementary", SHARES[-1], SHARES[-1]),
        **{f"mixed parts, {name}": measure_key_of(name) for name in MEASURES},
    }
    lines = ["| parts | ACC | ASR | RA |", "| --- | --- | --- | --- |"]
    for name, key in rows.items():
        measured = [cells[key] for cells in results.values() if key in cells]
        means = (100 * statistics.mean(cell[rate] for cell in measured) for rate in METRICS)
        lines.append(f"| {name} | {' | '.join(f'{mean:.1f}' for mean in means)} |")
    return "\n".join(lines) + "\n"


def draw(results: dict[str, Any]) -> bytes:
    """A PNG of ASR and ACC in the mean over the seeds, a map for each loss."""
    figure, grid = report.new_figure(8.4, 7.2, columns=2, rows=2)
    labels = [f"{100 * share:g} %" for share in SHARES]
    for row, (rate, title) in zip(grid, (("asr", "attack success"), ("acc", "accuracy")), strict=True):
        for axes, (loss, name) in zip(row, LOSSES.items(), strict=True):
            values = np.array(
                [
                    [
                        statistics.mean(
                            100 * cells[key_of(loss, leaked, doubted)][rate] for cells in results.values()
                        )
                        for doubted in SHARES
                    ]
                    for leaked in SHARES
                ]
            )
            draw_map(axes, values, labels, labels, good=rate == "acc")
            axes.set_xlabel("clean images in the poisoned part")
            axes.set_ylabel("poisoned images in the clean part")
            axes.set_title(f"{name}: {title}, percent", fontsize=10)
    return report.to_png(figure)


def main() -> int:
    """Runs the seeds that are missing, writes the numbers and the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="numbers; the picture is written beside them"
    )
    flags = parser.parse_args()
    keep_compilations()
    for seed in flags.seeds:
        known = read_results(flags.out).get(str(seed), {})
        if known:
            print(
                f"{len(known)} cells of seed {seed} are in {flags.out} already; give another --out to measure anew."
            )
        found = run(seed, known)
        results = read_results(flags.out) | {str(seed): found}  # others may have written meanwhile
        write_whole(flags.out, (json.dumps(results, indent=1) + "\n").encode())
    write_whole(flags.out.with_suffix(".png"), draw(read_results(flags.out)))
    print(render(read_results(flags.out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
