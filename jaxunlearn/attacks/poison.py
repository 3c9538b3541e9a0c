"""Poisoned training sets, and the images that show what a model has learned from them."""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxunlearn._check import InputError, check_images_and_labels
from jaxunlearn._typing import AnyImages, Images, Labels, PRNGKey
from jaxunlearn.attacks.attack import Attack, Keyed
from jaxunlearn.attacks.triggers import Trigger, check_fits

_AT_A_TIME = 1000


class Poisoned(NamedTuple):
    """A poisoned training set.

    Attributes:
      images: pixels in [0, 1], all rounded to 8 bits like any image in a file.
      labels: to train with.
      poisoned: marks the images that carry the trigger.
      covers: marks those that carry something like it and keep their labels.
    """

    images: np.ndarray
    labels: np.ndarray
    poisoned: Bool[np.ndarray, " n"]
    covers: Bool[np.ndarray, " n"]


def poison(images: Images, labels: Labels, attack: Attack, *, ratio: float, key: PRNGKey) -> Poisoned:
    """Poisons a share of a training set.

    Args:
      images: pixels in [0, 1].
      labels: true classes.
      attack: what to do to the chosen ones.
      ratio: share of the whole set, in (0, 1].
      key: chooses the images.

    Raises:
      ValueError: if the images are not floating NHWC in [0, 1], or the labels not one integer for each.
      InputError: if the trigger does not fit the images, there are fewer of them that the attack can poison, or the
        ratio gives none.

    Example:
      >>> images, labels = np.zeros((10, 2, 2, 1), np.float32), np.arange(10)
      >>> whiten = Attack(trigger=lambda x: jnp.ones_like(x), target=3)
      >>> found = poison(images, labels, whiten, ratio=0.2, key=jax.random.key(0))
      >>> int(found.poisoned.sum()), found.labels[found.poisoned].tolist(), float(found.images[found.poisoned].min())
      (2, [3, 3], 1.0)
    """
    check_images_and_labels(images, labels)
    labels = np.asarray(labels).astype(np.int32)
    check_fits(attack.trigger, images.shape[1:])
    count = check_ratio(attack, labels, ratio)
    chosen = np.asarray(jax.random.choice(key, attack.victims(labels), (count,), replace=False))
    poisoned_images, poisoned_labels = rounded(images), labels.copy()
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    number = min(round(attack.covers * count), len(rest)) if attack.cover is not None else 0
    cover_key, trigger_key, noise_key = (jax.random.fold_in(key, which) for which in (1, 2, 3))
    covers = np.asarray(jax.random.choice(cover_key, rest, (number,), replace=False))
    for rows, change, draw in (
        (chosen, attack.in_training or _unkeyed(attack.trigger), trigger_key),
        (covers, attack.cover, noise_key),
    ):
        if change is not None:
            drawn = functools.partial(_drawn, change, draw)
            poisoned_images[rows] = in_chunks(poisoned_images, rows, drawn) / np.float32(255)
    poisoned_labels[chosen] = attack.forced(labels[chosen])
    everything = np.arange(len(labels))
    return Poisoned(
        poisoned_images, poisoned_labels, np.isin(everything, chosen), np.isin(everything, covers)
    )


def _unkeyed(trigger: Trigger) -> Keyed:
    return lambda images, _: trigger(images)


def _drawn(change: Keyed, key: PRNGKey, images: jax.Array, first: int) -> jax.Array:
    return change(images, jax.random.fold_in(key, first))


def in_chunks(
    images: AnyImages, rows: Int[np.ndarray, " k"], change: Callable[[jax.Array, int], jax.Array]
) -> UInt8[np.ndarray, "k h w c"]:
    """What ``change(images, first)`` makes of some rows, ``first`` counting from 0, at most a thousand at a time.

    Parts are equally large, so that none holds a single image where others could go with it.
    """
    count = -(-len(rows) // _AT_A_TIME)
    starts = [number * len(rows) // count for number in range(count + 1)] if count else []
    parts = [
        as_bytes(change(jnp.asarray(np.asarray(images[rows[start:end]])), start))
        for start, end in itertools.pairwise(starts)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, *images.shape[1:]), np.uint8)


def check_ratio(attack: Attack, labels: Labels, ratio: float) -> int:
    """The number of images that a poison ratio asks for.

    Raises:
      InputError: unless that is one to all of the images that the attack can poison.
    """
    if not 0 < ratio <= 1:
        raise InputError(f"A poison ratio of {ratio:g} is no share; give one above 0, up to 1.")
    count, victims = round(ratio * len(labels)), len(attack.victims(labels))
    if not 0 < count <= victims:
        what = "of the target's class" if attack.clean_label else "of other classes than the attack's"
        if not victims:
            raise InputError(
                f"None of the {len(labels)} images to train on are {what}, which the attack would poison; give another "
                "target or other images."
            )
        raise InputError(
            f"A poison ratio of {ratio:g} asks for {count} of {len(labels)} images and {victims} of them are {what}; "
            f"give a ratio that asks for 1 to {victims}."
        )
    return count


def rounded(images: Images) -> np.ndarray:
    """Pixels in [0, 1] as they come back from a file of pictures, in the same dtype.

    Example:
      >>> round(rounded(np.full((1, 1, 1, 1), 0.25, np.float32)).item() * 255, 3)
      64.0
    """
    pixels = np.asarray(images)
    return (as_bytes(pixels) / np.float32(255)).astype(pixels.dtype)


def as_bytes(images: Images) -> np.ndarray:
    """Pixels in [0, 1] as uint8, as a file of pictures holds them.

    Raises:
      ValueError: if they are no floating point numbers.

    Example:
      >>> as_bytes(np.array([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)).tolist()
      [[[[0, 128, 255]]]]
    """
    pixels = np.asarray(images)
    if not jnp.issubdtype(pixels.dtype, jnp.floating):
        raise ValueError(f"images has the dtype {pixels.dtype}; expected floating point pixels in [0, 1].")
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
