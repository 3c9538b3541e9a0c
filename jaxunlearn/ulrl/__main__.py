"""``python -m jaxunlearn.ulrl``: cleans a PyTorch checkpoint with ULRL."""

from typing import Any

import numpy as np

from jaxunlearn import cli, report
from jaxunlearn._signals import leave
from jaxunlearn._typing import Variables
from jaxunlearn.inputs import Inputs
from jaxunlearn.job import Evidence, Procedure
from jaxunlearn.ulrl import PRESETS, RoundStats, State, head_kernel, mad_outliers, make_method


def _losses(stats: RoundStats) -> dict[str, float]:
    return {"loss": float(stats.loss), "accuracy": float(stats.accuracy)}


def _evidence(inputs: Inputs, variables: Variables, cleaned: Variables, state: State) -> Evidence:
    """Which classes' weights unlearning moved farthest."""
    if int(state.round) < state.config.unlearning_rounds:
        sentence = "unlearning ended before the classes were compared; nothing is known of them."
        return Evidence({"class": None, "classes": [], "sentence": sentence}, {})
    head = head_kernel(variables, inputs.model.spec.head)
    threshold = float(state.config.threshold)
    outliers = mad_outliers(state.scores[head], state.config.threshold)
    scores, z, outlying = (
        np.asarray(state.scores[head]),
        np.asarray(outliers.z),
        np.asarray(outliers.outlying),
    )
    order = [int(number) for number in np.argsort(-scores) if outlying[number]]
    if order:
        named = " and ".join(f"class {number} (z-score {z[number]:.1f})" for number in order)
        sentence = f"unlearning moved the weights of {named} farthest"
    else:
        sentence = f"no class stands out: the largest z-score is {z.max():.1f}, below {threshold:g}"
    drawn = {name: int(np.sum(found)) for name, found in state.suspects.items()}
    others = sum(count for name, count in drawn.items() if name != head)
    sentence += f"; {drawn[head]} rows of the last layer and {others} neurons of others were drawn anew."
    facts = {
        "class": order[0] if order else None,
        "classes": order,
        "scores": [float(score) for score in scores],
        "z_scores": [float(score) for score in z],
        "neurons_of_other_layers": others,
        "sentence": sentence,
    }
    return Evidence(facts, {"scores.png": report.draw_scores(z, outlying, threshold)})


PROCEDURE: Procedure = Procedure(
    "ulrl",
    lambda inputs, execution: make_method(inputs.apply_fn, execution, head=inputs.model.spec.head),
    _losses,
    _evidence,
    lambda _: (1.0,),
)


def main(argv: list[str] | None = None) -> Any:
    """Runs the command line and returns the exit code."""
    return cli.main(PROCEDURE, PRESETS, "Removes backdoors from an image classifier with ULRL.", argv)


if __name__ == "__main__":
    leave(main())
