"""What an attack does to images and labels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import jax
import numpy as np

from jaxunlearn._check import check_at_least, check_whole
from jaxunlearn._typing import Labels, PRNGKey
from jaxunlearn.attacks.triggers import Trigger

Keyed: TypeAlias = Callable[[jax.Array, PRNGKey], jax.Array]
"""Maps images and a key to images: a trigger that is drawn anew for each of them."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A backdoor to be planted.

    Attributes:
      trigger: what makes the model answer wrongly, applied to any image.
      target: the class that it forces; None where every class is sent to the next one (all-to-all).
      classes: of the data set; needed where there is no target.
      clean_label: whether only images that have the attack's label anyhow are poisoned.
      in_training: what poisoned training images get instead of the trigger.
      cover: what further training images get, which keep their labels, so that only the whole trigger counts.
      covers: the number of those per poisoned image.
      redrawn: whether every epoch of the training chooses the images anew, so that the attack shapes the training;
        otherwise one poisoned set is enough for it.

    Raises:
      ValueError: if neither a target nor classes are given, a clean-label attack has no target, the target is no class,
        or ``covers`` no number from 0 on.
    """

    trigger: Trigger
    target: int | None
    classes: int | None = None
    clean_label: bool = False
    in_training: Keyed | None = None
    cover: Keyed | None = None
    covers: float = 0.0
    redrawn: bool = False

    def __post_init__(self) -> None:
        """Validates the parts."""
        if self.target is None and (self.classes is None or self.clean_label):
            raise ValueError(
                f"target=None with classes={self.classes} and clean_label={self.clean_label}: an all-to-all attack "
                "needs the number of classes, and gives images other labels; give a target, or classes without "
                "clean_label."
            )
        check_at_least(0, covers=self.covers)
        if self.target is not None:
            check_whole(0, target=self.target)
            if self.classes is not None and self.target >= self.classes:
                raise ValueError(f"target={self.target} is none of the classes 0 to {self.classes - 1}.")

    def forced(self, labels: Labels) -> np.ndarray:
        """The labels that the attack wants for images of these classes.

        Example:
          >>> everywhere = Attack(trigger=lambda x: x, target=None, classes=3)
          >>> everywhere.forced(np.array([0, 1, 2])).tolist()
          [1, 2, 0]
        """
        labels = np.asarray(labels).astype(np.int32)  # eight bits may have no room for the classes
        if self.target is None:
            return (labels + 1) % self.classes
        return np.full_like(labels, self.target)

    def victims(self, labels: Labels) -> np.ndarray:
        """The rows of the images that may be poisoned; without those whose label the attack would not change."""
        same = np.asarray(labels) == self.forced(labels)
        return np.flatnonzero(same if self.clean_label else ~same)
