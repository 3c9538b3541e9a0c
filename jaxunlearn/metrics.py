"""The definitions of ACC, ASR, RA and DER, as counts first and rates last.

Counts add up over batches and hosts where rates do not, and a count says how much it can be trusted.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Count(NamedTuple):
    """``hits`` of ``total`` images.

    Example:
      >>> Count(3, 4).rate
      0.75
    """

    hits: int
    total: int

    @property
    def rate(self) -> float:
        """hits / total in [0, 1]; NaN where nothing was counted."""
        return self.hits / self.total if self.total else float("nan")


def accuracy(predictions: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> Count:
    """ACC: untouched images that get their true class."""
    return Count(int(np.sum(predictions == labels)), len(labels))


def attack_success(
    predictions: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], target: int | Int[np.ndarray, " n"]
) -> Count:
    """ASR: triggered images that get the target class, images of that class left out.

    Args:
      predictions: of the triggered images.
      labels: the true classes of the same images.
      target: the class that the trigger forces; one for all images, or one for each.
    """
    counted = labels != target
    return Count(int(np.sum((predictions == target) & counted)), int(np.sum(counted)))


def recovered_accuracy(
    predictions: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], target: int | Int[np.ndarray, " n"]
) -> Count:
    """RA: triggered images that get their true class, counted over the same images as ASR.

    ASR + RA <= 1; RA tells a model that recovered from one that only stopped answering the target.
    """
    counted = labels != target
    return Count(int(np.sum(predictions[counted] == labels[counted])), int(np.sum(counted)))


def defense_effectiveness(acc_before: float, acc_after: float, asr_before: float, asr_after: float) -> float:
    """DER: rewards a fall of ASR and punishes a fall of ACC.

    DER = (max(0, ASR_before - ASR_after) - max(0, ACC_before - ACC_after) + 1) / 2, in [0, 1];
    0.5 means no effect. All rates in [0, 1]; NaN, where nothing was counted, gives NaN.

    Source: Zhu et al., "Enhancing fine-tuning based backdoor defense with sharpness-aware minimization",
    ICCV 2023, equation 7. Beware of implementations that add the fall of accuracy.

    Example:
      >>> defense_effectiveness(0.9, 0.9, 1.0, 0.0)
      1.0
    """
    removed, lost = (float(np.maximum(0, fall)) for fall in (asr_before - asr_after, acc_before - acc_after))
    return (removed - lost + 1) / 2
