"""A network of a few lines and a problem it can learn, for tests that must be fast."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.models import convolve

CLASSES = 3
SHAPE = (6, 6, 1)


def apply_fn(
    variables: Any, images: jax.Array, *, train: bool, rngs: Any = None
) -> tuple[jax.Array, dict[str, Any]]:
    """A convolution, a normalisation, a smooth bend, and a linear layer.

    In training its mean is that of the batch, which moves the running one, and features are noisy.
    """
    params, stats = variables["params"], variables["batch_stats"]
    x = convolve(images, params["kernel"], 1, 1)
    mean = x.mean((0, 1, 2)) if train else stats["mean"]
    features = jnp.tanh((x - mean) * params["scale"]).mean((1, 2))
    if rngs is not None:
        features *= 1 + 0.1 * jax.random.normal(rngs["dropout"], features.shape)
    aux = {"features": features}
    if train:
        aux["batch_stats"] = {**stats, "mean": 0.9 * stats["mean"] + 0.1 * mean}
    return features @ params["head"] + params["bias"], aux


def variables(seed: int = 0) -> dict[str, Any]:
    """Random weights."""
    keys = jax.random.split(jax.random.key(seed), 4)
    return {
        "params": {
            "kernel": jax.random.normal(keys[0], (3, 3, 1, 4)) / 3,
            "scale": 1 + 0.1 * jax.random.normal(keys[1], (4,)),
            "head": jax.random.normal(keys[2], (4, CLASSES)),
            "bias": jnp.zeros(CLASSES),
        },
        "batch_stats": {"mean": 0.1 * jax.random.normal(keys[3], (4,)), "count": jnp.asarray(7)},
    }


def fresh(key: jax.Array) -> dict[str, Any]:
    """Variables of an untrained network."""
    kernel_key, head_key = jax.random.split(key)
    made = variables()
    drawn = {
        "kernel": jax.random.normal(kernel_key, (3, 3, 1, 4)) / 3,
        "head": jax.random.normal(head_key, (4, CLASSES)),
    }
    return {**made, "params": {**made["params"], **drawn}}


def images_and_labels(count: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise whose brightness tells the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    images = rng.random((count, *SHAPE)) * 0.4 + 0.3 * labels[:, None, None, None]
    return images.astype(np.float32), labels


def with_white_images(count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """A quarter of the images are nearly white and have the label that the network gives to white.

    White stays white under other images, so that these are what a pre-filter suspects, and they are a group.
    """
    images, labels = images_and_labels(count)
    number = count // 4
    images[:number] = 1 - 0.02 * images[:number]
    labels[:number] = np.argmax(apply_fn(variables(), jnp.ones((1, *SHAPE)), train=False)[0])
    return images, labels
