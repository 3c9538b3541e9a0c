"""Removes backdoors from image classifiers: published unlearning methods as pure JAX functions.

Methods are sub-packages with ``unlearn``, ``Config`` and ``PRESETS``: ``ibau``, ``sau``, ``ulrl``, ``dau`` and
the baseline ``finetune``. The rest is what all of them share: hypergradients, attacks to test with, and evaluation.
"""

# The signals come first: an interruption ends a program that still imports the rest.
from jaxunlearn import _signals, attacks, dau, finetune, ibau, losses, metrics, sau, ulrl  # noqa: F401
from jaxunlearn._check import InputError
from jaxunlearn._implicit import Hypergradient, hypergradient, solver
from jaxunlearn._loop import Batch, Data, Execution, Method, NonFiniteError, rounds
from jaxunlearn._typing import ApplyFn
from jaxunlearn.evaluate import Evaluation, evaluate, predict
from jaxunlearn.fit import TRAINING, fit
from jaxunlearn.pixels import NORMALIZATIONS, Preprocessing
from jaxunlearn.preprocessing import choose_preprocessing

__version__ = "0.1.0"

__all__ = [
    "NORMALIZATIONS",
    "TRAINING",
    "ApplyFn",
    "Batch",
    "Data",
    "Evaluation",
    "Execution",
    "Hypergradient",
    "InputError",
    "Method",
    "NonFiniteError",
    "Preprocessing",
    "attacks",
    "choose_preprocessing",
    "dau",
    "evaluate",
    "finetune",
    "fit",
    "hypergradient",
    "ibau",
    "losses",
    "metrics",
    "predict",
    "rounds",
    "sau",
    "solver",
    "ulrl",
]
