"""Keeping the images that clean apart from the images that judge."""

import dataclasses

import numpy as np

from jaxunlearn._check import InputError
from jaxunlearn.data.images import LabelledImages

_MOST_SHARED = 0.01


def hold_out(
    data: LabelledImages, *, share: float, most: int, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Sets a random part aside to judge by; images with the same pixels stay together.

    Args:
      data: all clean images.
      share: of the images to set aside, in (0, 1).
      most: upper limit of their number.
      seed: of the choice.

    Returns:
      The images to clean with, and those to judge by: as many as asked, at least one, or a few less where the
      same images would else be on both sides.
    """
    _, first, group = np.unique(data.fingerprints, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(data.labels))
    rank = np.argsort(order)[first][group]
    held = min(max(1, round(share * len(rank))), most)
    judging = rank < np.append(np.sort(rank), len(rank))[held]
    return data.take(np.flatnonzero(~judging)), data.take(np.flatnonzero(judging))


def without_shared(clean: LabelledImages, test: LabelledImages) -> LabelledImages:
    """The images to clean with, less those that are also among the images to judge by.

    Large collections share a few by accident; more than one in a hundred is a mistake.

    Args:
      clean: the images to clean with.
      test: the images to judge by.

    Raises:
      InputError: if more than one in a hundred images of ``test`` are among ``clean``.
    """
    judging = {fingerprint: row for row, fingerprint in enumerate(test.fingerprints)}
    shared = np.array([fingerprint in judging for fingerprint in clean.fingerprints])
    if not shared.any():
        return clean
    row = int(np.argmax(shared))
    both = len({fingerprint for fingerprint in clean.fingerprints if fingerprint in judging})
    found = (
        f"{both} of the {len(test.labels)} images of {test.origin} to judge by are also among those of "
        f"{clean.origin} to clean with ({test.name_of(judging[clean.fingerprints[row]])} is {clean.name_of(row)})"
    )
    if both > _MOST_SHARED * len(test.labels):
        raise InputError(
            f"{found}; give others, such as the slices [:1000] and [1000:] of one source, or leave --test away."
        )
    notice = f"{found}; they are not cleaned with."
    return dataclasses.replace(clean.take(~shared), notices=(*clean.notices, notice))
