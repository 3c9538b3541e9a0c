"""Poisoned training sets."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn._typing import Images, Labels, PRNGKey
from jaxunlearn.attacks.triggers import Trigger


def poison(
    images: Images, labels: Labels, trigger: Trigger, *, target: int, rate: float, key: PRNGKey
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triggers and relabels a share of a training set (all-to-one, dirty label).

    Args:
      images: pixels in [0, 1].
      labels: true classes.
      trigger: applied to the chosen images.
      target: the class that they are relabelled to. Only images of other classes are chosen.
      rate: share of the whole set, in [0, 1]; at most all images of other classes.
      key: chooses the images.

    Returns:
      Poisoned images, their labels, and a boolean array that marks the poisoned ones.

    Example:
      >>> images, labels = np.zeros((10, 2, 2, 1), np.float32), np.arange(10)
      >>> whiten = lambda x: jnp.ones_like(x)
      >>> poisoned, new_labels, chosen = poison(images, labels, whiten, target=3, rate=0.2, key=jax.random.key(0))
      >>> int(chosen.sum()), new_labels[chosen].tolist(), float(poisoned[chosen].min())
      (2, [3, 3], 1.0)
    """
    others = np.flatnonzero(np.asarray(labels) != target)
    count = min(round(rate * len(labels)), len(others))
    chosen = np.asarray(jax.random.choice(key, others, (count,), replace=False))
    poisoned_images, poisoned_labels = np.array(images), np.array(labels)
    poisoned_images[chosen] = np.asarray(trigger(jnp.asarray(poisoned_images[chosen])))
    poisoned_labels[chosen] = target
    return poisoned_images, poisoned_labels, np.isin(np.arange(len(labels)), chosen)
