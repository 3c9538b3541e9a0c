"""I-BAU: adversarial unlearning of backdoors by implicit hypergradient (Zeng et al., ICLR 2022)."""

from jaxunlearn._loop import Batch, Data, Execution, Method, NonFiniteError
from jaxunlearn._universal import Ascent
from jaxunlearn.ibau.algorithm import (
    RoundStats,
    State,
    finish,
    make_method,
    outer_loss,
    unlearn,
    unlearning_hypergradient,
)
from jaxunlearn.ibau.config import Config
from jaxunlearn.ibau.perturbations import ascent_step, inner_loss, start
from jaxunlearn.ibau.presets import PRESETS

__all__ = [
    "PRESETS",
    "Ascent",
    "Batch",
    "Config",
    "Data",
    "Execution",
    "Method",
    "NonFiniteError",
    "RoundStats",
    "State",
    "ascent_step",
    "finish",
    "inner_loss",
    "make_method",
    "outer_loss",
    "start",
    "unlearn",
    "unlearning_hypergradient",
]
