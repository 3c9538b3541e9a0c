"""SAU: unlearning of shared adversarial examples (Wei et al., NeurIPS 2023)."""

from jaxunlearn._loop import Batch, Data, Execution, Method, NonFiniteError
from jaxunlearn._universal import Ascent, start
from jaxunlearn.sau.algorithm import (
    Examples,
    Losses,
    RoundStats,
    State,
    examine,
    finish,
    make_method,
    unlearn,
    unlearning_loss,
)
from jaxunlearn.sau.config import Config
from jaxunlearn.sau.perturbations import climb, search, search_loss
from jaxunlearn.sau.presets import PRESETS

__all__ = [
    "PRESETS",
    "Ascent",
    "Batch",
    "Config",
    "Data",
    "Examples",
    "Execution",
    "Losses",
    "Method",
    "NonFiniteError",
    "RoundStats",
    "State",
    "climb",
    "examine",
    "finish",
    "make_method",
    "search",
    "search_loss",
    "start",
    "unlearn",
    "unlearning_loss",
]
