"""Losses over padded batches: every mean counts only the images that a mask keeps."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxunlearn._typing import Labels, Logits, Scalar


def masked_mean(values: Float[Array, " n"], mask: jax.Array) -> Scalar:
    """The mean of the values where ``mask`` is one.

    sum_i m_i v_i / sum_i m_i, and 0 where the mask keeps nothing.
    """
    weights = mask.astype(values.dtype)
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1)


def mean_cross_entropy(logits: Logits, labels: Labels, mask: jax.Array) -> Scalar:
    """Mean softmax cross-entropy of the images that the mask keeps, in nats.

    Args:
      logits: shape (n, classes).
      labels: the true classes, shape (n,), in 0..classes-1.
      mask: shape (n,), one for images that count and zero for padding.

    Returns:
      A scalar of the logits' dtype.

    Example:
      >>> float(mean_cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]), jnp.ones(2)))  # log 4
      1.3862943649291992
    """
    return masked_mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels), mask)
