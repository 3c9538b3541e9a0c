"""Splitting the images that clean from the images that judge."""

import numpy as np

from jaxunlearn.data.sources import LabelledImages


def hold_out(
    data: LabelledImages, *, share: float, most: int, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Sets a random part aside to judge by.

    Args:
      data: all clean images.
      share: of the images to set aside, in (0, 1); at least one.
      most: upper limit of their number.
      seed: of the choice.

    Returns:
      The images to clean with, and those to judge by.
    """
    order = np.random.default_rng(seed).permutation(len(data.labels))
    held = min(max(1, round(share * len(order))), most)
    return data.take(np.sort(order[held:])), data.take(np.sort(order[:held]))
