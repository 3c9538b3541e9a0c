"""Where the backdoors of the published checkpoints sit: what drawing neurons anew does before any relearning.

Command   python -m experiments.explain_ulrl --shared DIR
Hardware  two CPU cores; about a minute per checkpoint of CIFAR-10, three of GTSRB
Expected  experiments/results/ulrl_neurons.json

Of every checkpoint, after unlearning on 500 clean images: the rates of the unlearned network; the mean logit
of triggered images for the target and for the best other class, and of clean images for their best class; the
number of outliers by layer; and the rates, mean over draws, after drawing anew the row of the target class
alone, the outliers of the hidden layers alone, and both.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reproduction import (
    CHECKPOINTS,
    add_result,
    images_of,
    rates,
    trigger_of,
    victim_of,
)
from experiments.tables import METRICS
from jaxunlearn import ulrl
from jaxunlearn._runtime import keep_compilations
from jaxunlearn._tree import combine

CLEAN_IMAGES, SHOWN = 500, 300


def logits_of(shared: Path, name: str, model: Any) -> dict[str, float]:
    """Mean logits of images that are not of the target class."""
    data, trigger_name, target = CHECKPOINTS[name]
    _, test = images_of(shared, data)
    images = jnp.asarray(test.images[test.labels != target][:SHOWN])
    clean, triggered = (
        np.asarray(model.spec.apply(model.variables, shown, train=False)[0])
        for shown in (images, trigger_of(shared, trigger_name)(images))
    )
    others = np.delete(triggered, target, axis=1)
    means = {
        "triggered, target": triggered[:, target].mean(),
        "triggered, best other": others.max(1).mean(),
        "triggered, mean other": others.mean(),
        "clean, best": clean.max(1).mean(),
    }
    return {what: round(float(mean), 2) for what, mean in means.items()}


def explain(shared: Path, name: str, draws: int) -> dict[str, Any]:
    """The numbers of one checkpoint.

    Raises:
      RuntimeError: if unlearning does not end before its last round, which goes back to the original variables.
    """
    model, data, attack, judge = victim_of(shared, name, CLEAN_IMAGES)
    config = ulrl.PRESETS["default"]
    method = ulrl.make_method(model.spec.apply, ulrl.Execution(), head=model.spec.head)
    state = method.init(model.variables, data, config, jax.random.key(0))
    for _ in range(config.unlearning_rounds - 1):
        state, _ = method.step(state, data)
        if state.stopped:
            break
    else:
        raise RuntimeError(
            f"{name} still answers {100 * float(state.accuracy):.0f} % of the images right after "
            f"{int(state.round)} epochs of unlearning, and at most {100 * config.stop_accuracy:.0f} % were expected; "
            "take a larger unlearning_rate."
        )
    unlearned = combine(state.params, state.rest)
    kernels = (
        ulrl.layer_kernels(variables, model.spec.head, config.layers)
        for variables in (state.original, unlearned)
    )
    before, after = kernels
    outlying = {
        layer: ulrl.mad_outliers(ulrl.neuron_scores(kernel, after[layer]), config.threshold).outlying
        for layer, kernel in before.items()
    }
    last = ulrl.head_kernel(state.original, model.spec.head)
    row: dict[str, Any] = {last: jnp.arange(len(outlying[last])) == attack.target}
    hidden = {layer: mask for layer, mask in outlying.items() if layer != last}
    result: dict[str, Any] = {
        "unlearned": rates(judge(unlearned)),
        "logits": logits_of(shared, name, model),
        "outliers": {layer: int(mask.sum()) for layer, mask in outlying.items()},
    }
    for what, suspects in (("row", row), ("hidden", hidden), ("row and hidden", {**row, **hidden})):
        drawn = [
            rates(judge(ulrl.reinitialise(state.original, suspects, jax.random.key(seed))))
            for seed in range(draws)
        ]
        result[f"drawn anew: {what}"] = {
            rate: [round(float(fun([one[rate] for one in drawn])), 4) for fun in (np.mean, np.std)]
            for rate in METRICS
        }
    return result


def main() -> int:
    """Writes the numbers of all checkpoints, one by one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="folder with checkpoints and data")
    parser.add_argument(
        "--checkpoints", nargs="+", choices=list(CHECKPOINTS), default=list(CHECKPOINTS), metavar="NAME"
    )
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ulrl_neurons.json")
    flags = parser.parse_args()
    keep_compilations()
    for name in flags.checkpoints:
        found = explain(flags.shared, name, flags.draws)
        print(name, json.dumps(found, indent=1), flush=True)
        add_result(flags.out, (name,), found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
