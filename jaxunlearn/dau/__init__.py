"""DAU: decoupled adversarial unlearning with the poisoned training set; a reconstruction from its abstract."""

from jaxunlearn._loop import Batch, Data, Execution, Method, NonFiniteError
from jaxunlearn.dau.algorithm import (
    Fresh,
    RoundStats,
    State,
    clean_losses,
    finish,
    init,
    make_method,
    poisoned_losses,
    unlearn,
)
from jaxunlearn.dau.config import PRESETS, Config
from jaxunlearn.dau.splitting import (
    Groups,
    Head,
    Parts,
    discriminate,
    isolation_loss,
    label_doubts,
    label_log_odds,
    lowest,
    minimum_error_groups,
    split,
)

__all__ = [
    "PRESETS",
    "Batch",
    "Config",
    "Data",
    "Execution",
    "Fresh",
    "Groups",
    "Head",
    "Method",
    "NonFiniteError",
    "Parts",
    "RoundStats",
    "State",
    "clean_losses",
    "discriminate",
    "finish",
    "init",
    "isolation_loss",
    "label_doubts",
    "label_log_odds",
    "lowest",
    "make_method",
    "minimum_error_groups",
    "poisoned_losses",
    "split",
    "unlearn",
]
