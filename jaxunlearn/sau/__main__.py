"""``python -m jaxunlearn.sau``: cleans a PyTorch checkpoint with SAU."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn import cli, evidence
from jaxunlearn._loop import Batch
from jaxunlearn._signals import leave
from jaxunlearn._typing import Variables
from jaxunlearn.inputs import Inputs
from jaxunlearn.job import Evidence, Procedure
from jaxunlearn.sau import PRESETS, RoundStats, State, make_method, search

_EXAMPLES = 100


def _losses(stats: RoundStats) -> dict[str, float]:
    return {name: float(loss) for name, loss in stats.losses._asdict().items()}


def _evidence(inputs: Inputs, variables: Variables, cleaned: Variables, state: State) -> Evidence:
    """What the perturbations that were found on the model as it came do to test images, before and after."""
    if state.ascent is not None:
        shared = np.asarray(state.perturbations[0])
        return evidence.of_one_perturbation(inputs, variables, cleaned, shared, clip=state.config.clip_pixels)
    rows = evidence.rows_of_other_classes(inputs, _EXAMPLES)
    images = jnp.asarray(inputs.test.images[rows])
    answers = jnp.argmax(inputs.apply_fn(variables, images, train=False)[0], axis=1)
    batch = Batch(images, jnp.asarray(inputs.test.labels[rows]), jnp.ones(len(rows), bool))
    models, both = (variables, variables), (answers, answers)
    key = jax.random.fold_in(state.key, state.config.rounds)  # that of no round
    delta = search(inputs.apply_fn, models, batch, both, state.config, key)
    return evidence.of_their_own_perturbations(inputs, variables, cleaned, rows, np.asarray(images + delta))


PROCEDURE: Procedure = Procedure(
    "sau",
    lambda inputs, execution: make_method(inputs.apply_fn, execution),
    _losses,
    _evidence,
    lambda _: (1.0,),
)


def main(argv: list[str] | None = None) -> Any:
    """Runs the command line and returns the exit code."""
    return cli.main(PROCEDURE, PRESETS, "Removes backdoors from an image classifier with SAU.", argv)


if __name__ == "__main__":
    leave(main())
