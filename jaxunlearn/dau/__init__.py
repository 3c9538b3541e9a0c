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
    Head,
    Parts,
    discriminate,
    isolation_loss,
    label_probabilities,
    log_odds_change,
    lowest,
    otsu,
    split,
)

__all__ = [
    "PRESETS",
    "Batch",
    "Config",
    "Data",
    "Execution",
    "Fresh",
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
    "label_probabilities",
    "log_odds_change",
    "lowest",
    "make_method",
    "otsu",
    "poisoned_losses",
    "split",
    "unlearn",
]
