"""Losses over padded batches: every mean counts only the images that a mask keeps."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxunlearn._typing import Labels, Logits, Number, Probabilities, Scalar


def as_integers(labels: Labels) -> Int[Array, " n"]:
    """Labels in a dtype that has room for the numbers of classes, groups and bins, which eight bits have not."""
    return jnp.asarray(labels).astype(jnp.int32)


def masked_mean(values: Float[Array, " n"], mask: jax.Array) -> Scalar:
    """The mean of the values where ``mask`` is one.

    sum_i m_i v_i / sum_i m_i, and 0 where the mask keeps nothing. What it does not keep may be NaN. Sums are taken in
    single precision at least, since in half precision 70 000 values are more than the largest number.

    Example:
      >>> masked_mean(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1, 1, 0])).item()
      2.0
    """
    wide = jnp.promote_types(values.dtype, jnp.float32)
    weights = mask.astype(wide)
    kept = jnp.where(weights > 0, values.astype(wide) * weights, 0)
    return (jnp.sum(kept) / jnp.maximum(jnp.sum(weights), 1)).astype(values.dtype)


def mean_cross_entropy(logits: Logits, labels: Labels | Probabilities, mask: jax.Array) -> Scalar:
    """Mean softmax cross-entropy of the images that the mask keeps, in nats.

    Args:
      logits: shape (n, classes).
      labels: the true classes, shape (n,), in 0..classes-1; or the probability of every class, shape (n, classes).
      mask: shape (n,), one for images that count and zero for padding.

    Returns:
      A scalar of the logits' dtype.

    Example:
      >>> float(mean_cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]), jnp.ones(2)))  # log 4
      1.3862943649291992
    """
    if jnp.ndim(labels) > 1:
        return masked_mean(optax.losses.softmax_cross_entropy(logits, labels), mask)
    return masked_mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels), mask)


def jensen_shannon(first: Logits, second: Logits, *, floor: Number = 0.0) -> Float[Array, " n"]:
    """The Jensen-Shannon divergence of two answers, image by image, in nats.

    JS(p, q) = (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2; between 0 and log 2.

    Args:
      first: logits of p, shape (n, classes).
      second: logits of q.
      floor: probabilities below it are taken as it, which ends their gradient.

    Example:
      >>> logits = jnp.array([[0.0, 0.0], [90.0, 0.0]])
      >>> jensen_shannon(logits, jnp.array([[0.0, 0.0], [0.0, 90.0]])).tolist()  # equal, and log 2
      [0.0, 0.6931471824645996]
    """
    log_p, log_q = (jnp.maximum(jax.nn.log_softmax(logits), jnp.log(floor)) for logits in (first, second))
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_m) + jnp.exp(log_q) * (log_q - log_m), axis=1) / 2


def complementary_cross_entropy(
    logits: Logits, labels: Labels, *, offset: Number = 0.0, enough: Number = 1.0
) -> Float[Array, " n"]:
    """The loss of the statement that an image is *not* of a class, -log(1 - p_label), in nats.

    log(1 - p_y) = log sum_{j != y} exp z_j - log sum_j exp z_j stays exact where p_y rounds to one. Its gradient
    is p_y / (1 - p_y) times that of log p_y: full force where p_y is near one, none where it is near zero.

    Args:
      logits: shape (n, classes).
      labels: the classes that the images are not of.
      offset: added to 1 - p_y, which bounds the loss.
      enough: 1 - p_y counts as no more than this, which ends the gradient beyond it.

    Example:
      >>> complementary_cross_entropy(jnp.array([[0.0, 0.0], [99.0, 0.0]]), jnp.array([0, 0])).tolist()
      [0.6931471824645996, 99.0]
    """
    others = jnp.where(jax.nn.one_hot(as_integers(labels), logits.shape[1], dtype=bool), -jnp.inf, logits)
    log_rest = jax.nn.logsumexp(others, axis=1) - jax.nn.logsumexp(logits, axis=1)
    return -jnp.logaddexp(jnp.minimum(log_rest, jnp.log(enough)), jnp.log(offset))
