"""ULRL: unlearn to find the neurons of a backdoor, relearn without them (Min et al., 2024)."""

from jaxunlearn._loop import Batch, Data, Execution, Method, NonFiniteError
from jaxunlearn._tree import head_kernel
from jaxunlearn.ulrl.algorithm import (
    Phase,
    RoundStats,
    State,
    Step,
    finish,
    make_method,
    phase_of,
    training_step,
    unlearn,
)
from jaxunlearn.ulrl.config import Config
from jaxunlearn.ulrl.neurons import (
    Outliers,
    cosine_penalty,
    layer_kernels,
    mad_outliers,
    neuron_scores,
    reinitialise,
    suspicious,
)
from jaxunlearn.ulrl.presets import PRESETS

__all__ = [
    "PRESETS",
    "Batch",
    "Config",
    "Data",
    "Execution",
    "Method",
    "NonFiniteError",
    "Outliers",
    "Phase",
    "RoundStats",
    "State",
    "Step",
    "cosine_penalty",
    "finish",
    "head_kernel",
    "layer_kernels",
    "mad_outliers",
    "make_method",
    "neuron_scores",
    "phase_of",
    "reinitialise",
    "suspicious",
    "training_step",
    "unlearn",
]
