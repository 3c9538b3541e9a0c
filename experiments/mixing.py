"""What DAU's unlearning makes of parts that hold each other's images: complementary loss against gradient ascent.

Command   python -m experiments.mixing --seeds 0
Data      scikit-learn's digits; a hundred of a thousand carry a white square and the label 0
Hardware  two CPU cores; about two minutes per seed
Expected  the numbers and the picture in experiments/results/mixing.*; nothing is published

The parts are the true ones, but for a share of the poisoned images that lies in the clean part, and a share of the
clean ones that lies in the poisoned part. Ten epochs of unlearning by the default settings, without stopping early.
"""

import argparse
import dataclasses
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduction import read_results
from jaxunlearn import TRAINING, dau, evaluate, fit, report
from jaxunlearn._files import write_whole
from jaxunlearn._runtime import keep_compilations
from jaxunlearn.attacks import Attack, parse_trigger, poison
from jaxunlearn.data import load
from jaxunlearn.models import small_vgg

RESULTS = Path(__file__).parent / "results" / "mixing.json"
SHARES = (0.0, 0.01, 0.05, 0.1)
LOSSES = {"complementary": "complementary cross-entropy", "ascent": "gradient ascent"}
_CERTAIN = -9.0  # a score that gives an image of the poisoned part its whole weight


def run(seed: int) -> dict[str, Any]:
    """ACC and ASR of every cell, by loss, leaked share and share of clean images taken for poisoned."""
    digits, test = load("digits[:1000]"), load("digits[1300:]")
    attack = Attack(trigger=parse_trigger("patch:size=2,offset=0,value=1"), target=0)
    keys = jax.random.split(jax.random.key(seed), 4)
    made = poison(np.asarray(digits.images), digits.labels, attack, ratio=0.1, key=keys[0])
    spec = small_vgg(classes=10, image_shape=(8, 8, 1), widths=(16, 32, 64))
    training = dataclasses.replace(TRAINING, rounds=16, batch_size=50)
    variables = fit(spec.apply, spec.init(keys[1]), made.images, made.labels, training, keys[2])
    data = dau.Data(made.images, made.labels)
    method = dau.make_method(spec.apply, dau.Execution(), head=spec.head)

    def judged(variables: Any) -> dict[str, float]:
        found = evaluate(
            spec.apply, variables, test.images, test.labels, trigger=attack.trigger, target=attack.target
        )
        return {name: round(rate, 4) for name, rate in found.rates().items() if rate is not None}

    rng = np.random.default_rng(seed)
    ranks = {group: rng.permutation(np.flatnonzero(made.poisoned == group)) for group in (True, False)}
    cells: dict[str, Any] = {"before": judged(variables)}
    for loss in LOSSES:
        config = dataclasses.replace(dau.PRESETS["default"], batch_size=50, loss=loss, forgotten=0.0)
        for leaked in SHARES:
            for doubted in SHARES:
                swapped = np.zeros(len(made.labels), bool)
                for group, share in ((True, leaked), (False, doubted)):
                    swapped[ranks[group][: round(share * len(ranks[group]))]] = True
                poisoned = jnp.asarray(made.poisoned ^ swapped)
                state = method.init(variables, data, config, keys[3])
                state = state._replace(
                    parts=dau.Parts(poisoned, ~poisoned),
                    scores=jnp.where(poisoned, _CERTAIN, 0.0),
                    round=jnp.asarray(1),
                )
                for _ in range(1, config.rounds):
                    state, _ = method.step(state, data)
                cells[f"{loss} {leaked:g} {doubted:g}"] = judged(method.finish(state))
                print(seed, loss, leaked, doubted, cells[f"{loss} {leaked:g} {doubted:g}"], flush=True)
    return cells


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
                            100 * cells[f"{loss} {leaked:g} {doubted:g}"][rate] for cells in results.values()
                        )
                        for doubted in SHARES
                    ]
                    for leaked in SHARES
                ]
            )
            axes.imshow(values, cmap="RdYlGn" if rate == "acc" else "RdYlGn_r", vmin=0, vmax=100)
            for (line, column), value in np.ndenumerate(values):
                axes.text(column, line, f"{value:.1f}", ha="center", va="center")
            axes.set_xticks(range(len(labels)), labels)
            axes.set_yticks(range(len(labels)), labels)
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
    flags = parser.parse_args()
    keep_compilations()
    for seed in flags.seeds:
        results = read_results(RESULTS)
        if str(seed) not in results:
            results[str(seed)] = run(seed)
            write_whole(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    write_whole(RESULTS.with_suffix(".png"), draw(read_results(RESULTS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
