"""Finding out how a network's inputs were normalised, which no checkpoint says."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from jaxunlearn._check import InputError
from jaxunlearn._typing import AnyImages, ApplyFn, Labels, Variables
from jaxunlearn.evaluate import predict
from jaxunlearn.metrics import Count
from jaxunlearn.pixels import NORMALIZATIONS, Preprocessing

_MOST_IMAGES = 200
_LEAST_PLAUSIBLE = 0.5


class Choice(NamedTuple):
    """A preprocessing and what speaks for it.

    Attributes:
      preprocessing: the chosen one.
      chosen: ``by the user`` or ``by accuracy``.
      accuracies: clean images that get their true class, by candidate.
      commonest: of the same images, those of the commonest class: what a blind network can reach.
    """

    preprocessing: Preprocessing
    chosen: str
    accuracies: Mapping[Preprocessing, Count]
    commonest: Count

    @property
    def implausible(self) -> bool:
        """Whether the accuracy is that of a network that cannot see.

        It is if less than half of the images get their class, or no more than two standard errors above the
        share of the commonest class.
        """
        share, total = self.commonest.rate, self.commonest.total
        blind = share + 2 * math.sqrt(share * (1 - share) / total)
        return self.accuracies[self.preprocessing].rate < max(_LEAST_PLAUSIBLE, min(blind, 1.0))

    def describe(self) -> str:
        """One sentence for the user."""
        count = self.accuracies[self.preprocessing]
        others = [one for one in self.accuracies if one != self.preprocessing]
        text = (
            f"inputs are normalised as {self.preprocessing} ({self.chosen}): {100 * count.rate:.1f} % of "
            f"{count.total} clean images get their class"
        )
        if others:
            second = max(others, key=lambda one: self.accuracies[one].hits)
            text += f", and {100 * self.accuracies[second].rate:.1f} % with the runner-up {second}"
        return text + "."

    def as_dict(self) -> dict[str, Any]:
        """Everything by name, for JSON."""
        rates = {str(one): count.rate for one, count in self.accuracies.items()}
        return {
            **self.preprocessing.as_dict(),
            "chosen": self.chosen,
            "images": self.commonest.total,
            "accuracies": rates,
            "plausible": not self.implausible,
        }


def choose_preprocessing(
    apply_fn: ApplyFn,
    variables: Variables,
    images: AnyImages,
    labels: Labels,
    *,
    normalization: Preprocessing | None = None,
    bgr: bool | None = None,
) -> Choice:
    """Chooses the preprocessing with which a network gets the most of some clean images right.

    At most 200 images, always the same ones, are shown with each of ``NORMALIZATIONS`` and then with swapped
    channels and the best of them, or each of them again if none was plausible; with one channel, only ``none``
    and ``half`` are tried. Of two candidates that differ by no
    more than one standard error (the square root of the number of images that only one of them gets right) the
    simpler, earlier one counts as the better.

    Args:
      apply_fn: the network as trained, which takes normalised input.
      variables: of the network.
      images: clean, in [0, 1].
      labels: their true classes.
      normalization: known already; only this one is tried.
      bgr: whether the network takes blue first, if that is known already; RGB where ``normalization`` is given.

    Example:
      >>> def apply_fn(variables, x, *, train):  # the middle of its range parts the classes
      ...     return jnp.stack([0 * x[:, 0, 0, 0], x[:, 0, 0, 0]], axis=1), {}
      >>> images = np.linspace(0, 1, 100, dtype=np.float32).reshape(-1, 1, 1, 1)
      >>> choice = choose_preprocessing(apply_fn, {}, images, np.arange(100) // 50)
      >>> str(choice.preprocessing), choice.accuracies[NORMALIZATIONS["none"]].rate
      ('half', 0.51)
    """
    chosen = "by the user" if normalization else "by accuracy"
    colours = images.shape[-1] == 3
    sample = np.sort(np.random.default_rng(0).permutation(len(images))[:_MOST_IMAGES])
    shown, classes = np.asarray(images[sample]), np.asarray(labels)[sample]

    def right(candidate: Preprocessing) -> Bool[np.ndarray, " n"]:
        return predict(apply_fn, variables, candidate(jnp.asarray(shown)), batch_size=100) == classes

    known: Iterable[Preprocessing] = [normalization] if normalization else NORMALIZATIONS.values()
    fitting = [one for one in known if colours or len(one.mean) == 1]
    if normalization and not fitting:
        raise InputError(
            f"The normalisation {normalization.name} is one of {len(normalization.mean)} channels and the images have "
            f"{images.shape[-1]}; give one number each, such as 0.5/0.5, or none."
        )
    trials = {one: right(one) for one in (dataclasses.replace(one, bgr=bool(bgr)) for one in fitting)}
    commonest = Count(int(np.unique(classes, return_counts=True)[1].max()), len(sample))
    choice = _choice(trials, chosen, commonest)
    if colours and normalization is None and bgr is None:
        promising = fitting if choice.implausible else [choice.preprocessing]
        trials |= {one: right(one) for one in (dataclasses.replace(one, bgr=True) for one in promising)}
        choice = _choice(trials, chosen, commonest)
    return choice


def _choice(trials: Mapping[Preprocessing, Bool[np.ndarray, " n"]], chosen: str, commonest: Count) -> Choice:
    """The first of the trials that the best one does not beat by more than a standard error."""
    best = max(trials.values(), key=np.sum)
    simplest = next(
        one for one, hits in trials.items() if best.sum() - hits.sum() <= math.sqrt(np.sum(best != hits))
    )
    accuracies = {one: Count(int(hits.sum()), len(hits)) for one, hits in trials.items()}
    return Choice(simplest, chosen, accuracies, commonest)
