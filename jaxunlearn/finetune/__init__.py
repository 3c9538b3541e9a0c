"""Fine-tuning on clean images, the baseline: plain, or sharpness-aware (Zhu et al., ICCV 2023)."""

from jaxunlearn._loop import Batch, Data, Execution, Method, NonFiniteError
from jaxunlearn.finetune.algorithm import RoundStats, State, finish, make_method, sharpest, unlearn
from jaxunlearn.finetune.config import PRESETS, Config

__all__ = [
    "PRESETS",
    "Batch",
    "Config",
    "Data",
    "Execution",
    "Method",
    "NonFiniteError",
    "RoundStats",
    "State",
    "finish",
    "make_method",
    "sharpest",
    "unlearn",
]
