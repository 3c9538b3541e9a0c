"""I-BAU: adversarial unlearning of backdoors by implicit hypergradient (Zeng et al., ICLR 2022)."""

from jaxunlearn._loop import Batch, Data, Execution, NonFiniteError
from jaxunlearn.ibau.algorithm import (
    RoundStats,
    State,
    ascent_step,
    finish,
    init,
    inner_loss,
    make_method,
    outer_loss,
    unlearn,
    unlearning_hypergradient,
)
from jaxunlearn.ibau.config import Config

__all__ = [
    "Batch",
    "Config",
    "Data",
    "Execution",
    "NonFiniteError",
    "RoundStats",
    "State",
    "ascent_step",
    "finish",
    "init",
    "inner_loss",
    "make_method",
    "outer_loss",
    "unlearn",
    "unlearning_hypergradient",
]
