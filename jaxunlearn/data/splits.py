"""Keeping the images that clean apart from the images that judge."""

import dataclasses

import numpy as np

from jaxunlearn._check import InputError
from jaxunlearn.data.images import LabelledImages


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


def keep_apart(clean: LabelledImages, test: LabelledImages, *, leave_out: bool) -> LabelledImages:
    """Makes sure that no image to clean with, or to train on, is among the images to judge by.

    Args:
      clean: the images to clean with, or to train on.
      test: the images to judge by.
      leave_out: whether to leave shared images out of ``clean``; some published collections share a few between
        their own parts.

    Raises:
      InputError: if images are shared and not to be left out.
    """
    judging = {fingerprint: row for row, fingerprint in enumerate(test.fingerprints)}
    shared = np.array([fingerprint in judging for fingerprint in clean.fingerprints])
    if not shared.any():
        return clean
    row = int(np.argmax(shared))
    found = (
        f"{int(shared.sum())} of the {len(clean.labels)} images of {clean.origin} are also among those of "
        f"{test.origin} to judge by ({clean.name_of(row)} is {test.name_of(judging[clean.fingerprints[row]])})"
    )
    if not leave_out:
        raise InputError(
            f"{found}; give others, such as the slices [:1000] and [1000:] of one source, leave --test away if there "
            "is a --clean, or have the shared ones left out with --leave-out-shared."
        )
    return dataclasses.replace(clean.take(~shared), notices=(*clean.notices, f"{found}; they are left out."))
