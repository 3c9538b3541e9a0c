"""``python -m jaxunlearn.ibau``: cleans a PyTorch checkpoint with I-BAU."""

from typing import Any

import numpy as np

from jaxunlearn import cli, evidence
from jaxunlearn._signals import leave
from jaxunlearn._typing import Variables
from jaxunlearn.ibau import PRESETS, Config, RoundStats, State, make_method
from jaxunlearn.inputs import Inputs
from jaxunlearn.job import Evidence, Procedure

_RIVALS = 100


def _losses(stats: RoundStats) -> dict[str, float]:
    return {"inner_loss": float(stats.inner_loss), "outer_loss": float(stats.outer_loss)}


def _evidence(inputs: Inputs, variables: Variables, cleaned: Variables, state: State) -> Evidence:
    """Where the perturbation found on the model as it came sends test images, before and after."""
    found, suspicion = np.asarray(state.perturbations[0]), np.asarray(state.suspicion)
    # The last kind leads away from every class; of the others, each towards its own, one is the next best.
    rivals = {int(kind): found[kind] for kind in np.argsort(-suspicion[:-1])[:_RIVALS]}
    return evidence.of_one_perturbation(
        inputs, variables, cleaned, found[np.argmax(suspicion)], clip=state.config.clip_pixels, rivals=rivals
    )


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
    leave(main())
