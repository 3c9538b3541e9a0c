"""``python -m jaxunlearn.ibau``: cleans a PyTorch checkpoint with I-BAU."""

import sys
from typing import Any

import numpy as np

from jaxunlearn import cli
from jaxunlearn.ibau import PRESETS, Config, RoundStats, State, make_method
from jaxunlearn.job import Procedure


def _losses(stats: RoundStats) -> dict[str, float]:
    return {"inner_loss": float(stats.inner_loss), "outer_loss": float(stats.outer_loss)}


def _perturbations(state: State) -> np.ndarray:
    """Of every round, the perturbation of the kind that the first round suspected most."""
    return np.asarray(state.perturbations[:, int(np.argmax(state.suspicion))])


def _passes(config: Config) -> tuple[float, ...]:
    # In gradients: a step of ascent, and a hypergradient with its matrix products.
    return (1.0, 3.0 + config.solver_steps)


PROCEDURE: Procedure = Procedure("ibau", make_method, _losses, _perturbations, _passes)


def main(argv: list[str] | None = None) -> Any:
    """Runs the command line and returns the exit code."""
    return cli.main(PROCEDURE, PRESETS, "Removes backdoors from an image classifier with I-BAU.", argv)


if __name__ == "__main__":
    sys.exit(main())
