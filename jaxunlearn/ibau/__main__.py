"""``python -m jaxunlearn.ibau``: cleans a PyTorch checkpoint with I-BAU."""

import functools
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxunlearn import cli, report
from jaxunlearn._typing import Variables
from jaxunlearn.evaluate import predict
from jaxunlearn.ibau import PRESETS, Config, RoundStats, State, make_method
from jaxunlearn.inputs import Inputs
from jaxunlearn.job import Evidence, Procedure


def _losses(stats: RoundStats) -> dict[str, float]:
    return {"inner_loss": float(stats.inner_loss), "outer_loss": float(stats.outer_loss)}


def _evidence(inputs: Inputs, variables: Variables, cleaned: Variables, state: State) -> Evidence:
    """Where the perturbation found on the model as it came sends test images, before and after."""
    # Of the kinds of perturbations, the one that the first round suspected most.
    delta = np.asarray(state.perturbations[0, int(np.argmax(state.suspicion))])
    facts = _moved(inputs, variables, cleaned, delta)
    others = inputs.test.labels != (-1 if inputs.target is None else inputs.target)
    example = inputs.test.images[int(np.argmax(others))]
    picture = report.draw_perturbation(example, delta, inputs.trigger, facts)
    return Evidence(facts, {"perturbation.png": picture})


def _moved(inputs: Inputs, variables: Variables, cleaned: Variables, delta: np.ndarray) -> dict[str, Any]:
    """The class that a perturbation leads to, and the share of images that it leads there, before and after."""
    shifted = functools.partial(
        predict, inputs.apply_fn, images=inputs.test.images, trigger=lambda x: x + jnp.asarray(delta)
    )
    clean, perturbed = predict(inputs.apply_fn, variables, inputs.test.images), shifted(variables)
    moved = perturbed[perturbed != clean]
    if len(moved) == 0:
        sentence = "no perturbation was found that moves images to another class."
        return {"class": None, "share_before": 0.0, "share_after": 0.0, "sentence": sentence}
    suspect = int(np.bincount(moved).argmax())
    others = clean != suspect
    before = float(np.mean(perturbed[others] == suspect))
    after = float(np.mean(shifted(cleaned)[others] == suspect))
    sentence = (
        f"one perturbation of norm {np.linalg.norm(delta):.2f}, the same for all images, sent {100 * before:.1f} % "
        f"of them to class {suspect}; after unlearning it sends {100 * after:.1f} %."
    )
    return {"class": suspect, "share_before": before, "share_after": after, "sentence": sentence}


def _passes(config: Config) -> tuple[float, ...]:
    # In gradients: a step of ascent, and a hypergradient with its matrix products.
    return (1.0, 3.0 + config.solver_steps)


PROCEDURE: Procedure = Procedure(
    "ibau",
    lambda inputs, execution: make_method(inputs.apply_fn, execution),
    _losses,
    _evidence,
    _passes,
)


def main(argv: list[str] | None = None) -> Any:
    """Runs the command line and returns the exit code."""
    return cli.main(PROCEDURE, PRESETS, "Removes backdoors from an image classifier with I-BAU.", argv)


if __name__ == "__main__":
    sys.exit(main())
