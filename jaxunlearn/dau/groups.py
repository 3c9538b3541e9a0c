"""Groups of images with one label, and values that fall into two."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxunlearn._typing import Labels, Number
from jaxunlearn.losses import as_integers, masked_mean

_BINS = 257  # of a class's values
TINY = 1e-30  # what a divisor or a logarithm's argument is at least


class Groups(NamedTuple):
    """Two groups of values, of every class.

    Attributes:
      threshold: values up to it are in the lower one.
      low: mean of the lower one.
      high: mean of the upper one; equal to ``low`` where there are no two groups.
      gain: how much better two distributions describe the values than one, in nats in all.
    """

    threshold: Float[Array, "*classes"]
    low: Float[Array, "*classes"]
    high: Float[Array, "*classes"]
    gain: Float[Array, "*classes"]


def group_of(labels: Int[Array, " n"], lower: Bool[Array, " n"], classes: int) -> Int[Array, " n"]:
    """Numbers of groups: upper ones are those of their class, lower ones follow."""
    return labels + classes * lower


def group_means(
    values: Float[Array, "n k"], groups: Int[Array, " n"], number: int
) -> Float[Array, "number k"]:
    """Of every group; 0 where it is empty."""
    sizes = count_labels(groups, jnp.ones(len(values), bool), number)
    return jax.ops.segment_sum(values, groups, number) / jnp.maximum(sizes, 1)[:, None].astype(values.dtype)


def in_usual_units(
    vectors: Float[Array, "m k"], deviations: Float[Array, "n k"], ridge: Number
) -> Float[Array, "m k"]:
    """The vectors in units of what is usual: L^-1 v, for the covariance S = L L^T of the deviations.

    Args:
      vectors: v.
      deviations: of images from the mean of their class.
      ridge: share of the mean eigenvalue of their covariance that is added to each to give S.

    Example:
      >>> deviations = jnp.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
      >>> [[round(float(one), 2) for one in row] for row in in_usual_units(deviations[::2], deviations, 0.0)]
      [[1.41, 0.0], [0.0, 1.41]]
    """
    covariance = deviations.T @ deviations / len(deviations)
    usual = jnp.trace(covariance) / len(covariance)
    added = (ridge * usual + TINY) * jnp.eye(len(covariance), dtype=covariance.dtype)
    factor = jnp.linalg.cholesky(covariance + added)
    return jax.scipy.linalg.solve_triangular(factor, vectors.T, lower=True).T


def count_labels(labels: Labels, members: Bool[Array, " n"], classes: int) -> Float[Array, " classes"]:
    """How many of the images that ``members`` marks have each label.

    Example:
      >>> count_labels(jnp.array([1, 1, 0]), jnp.array([True, False, True]), 3).tolist()
      [1.0, 1.0, 0.0]
    """
    return jax.ops.segment_sum(members.astype(jnp.float32), jnp.asarray(labels), classes)


def minimum_error_groups(values: Float[Array, " n"], members: Bool[Array, " n"]) -> Groups:
    """``groups_by_class`` of one class, the values of ``members``.

    Example:
      >>> values = jnp.array([0.0, 0.5, 0.9, 1.0, 4.0, 9.0, 99.0])
      >>> found = minimum_error_groups(values, jnp.arange(7) < 6)
      >>> bool(1.0 < found.threshold < 4.0), [round(float(mean), 1) for mean in found[1:3]]
      (True, [0.6, 6.5])
    """
    return jax.tree.map(lambda leaf: leaf[0], groups_by_class(values, jnp.where(members, 0, 1), 1))


def groups_by_class(values: Float[Array, " n"], labels: Labels, classes: int) -> Groups:
    """Divides the values of every class into the two groups that two Laplace distributions describe best.

    With shares P_k and mean absolute deviations b_k of the groups, the threshold minimises

        P_1 log b_1 + P_2 log b_2 - P_1 log P_1 - P_2 log P_2,

    so that one group may be wide and the other narrow: scores of clean images lie close together, those of poisoned
    ones do not. A deviation is at least a bin, a group at least two values, and a median at the mean of its bin. The
    gain is their number times the difference of log b and that, whatever their scale. Values with labels that are no
    classes have no say.

    Source: Kittler and Illingworth, "Minimum error thresholding", 1986, with 257 bins between the least and the
    highest value, and with Laplace in place of normal distributions, whose tails are heavier.

    Example:
      >>> values, labels = jnp.array([0.0, 0.1, 1.0, 1.1, 5.0, 5.0, 9.0, 9.0]), jnp.arange(8) // 4
      >>> [round(float(mean), 2) for mean in groups_by_class(values, labels, 2).high]
      [1.05, 9.0]
    """
    labels, bins = as_integers(labels), _BINS
    low, high = (end(values, labels, classes) for end in (jax.ops.segment_min, jax.ops.segment_max))
    low, high = jnp.where(low < high, low, 0), jnp.where(low < high, high, 1)
    width = (high - low) / bins
    places = (values - low[labels]) / width[labels]
    cells = labels * bins + jnp.clip(jnp.ceil(places) - 1, 0, bins - 1).astype(labels.dtype)

    def in_cells(summands: Float[Array, " n"]) -> Float[Array, "classes bins"]:
        return jax.ops.segment_sum(summands, cells, classes * bins).reshape(classes, bins)

    counts, sums = in_cells(jnp.ones_like(values)), in_cells(places)
    # A group's sums start at its far end, so that they round like its own values.
    counts, sums = (
        jnp.stack([counts, counts[:, ::-1]]),
        jnp.stack([sums, (bins * counts - sums)[:, ::-1]]),
    )
    up_to = jnp.triu(jnp.ones((bins, bins), values.dtype))
    members, totals = (jnp.matmul(one, up_to, precision="highest") for one in (counts, sums))
    spreads = jax.vmap(jax.vmap(_deviations))(counts, sums, members, totals) / jnp.maximum(members, 1)
    number = members[0, :, -1:]
    shares = members / jnp.maximum(number, 1)
    entropy = jnp.log(jnp.maximum(spreads, 1)) - jnp.log(jnp.maximum(shares, TINY))
    costs = jnp.where(members > 1, shares * entropy, jnp.inf)
    costs_of_cuts = costs[0, :, :-1] + costs[1, :, -2::-1]
    # In a gap all thresholds are equally good: the middle one.
    least = jnp.min(costs_of_cuts, axis=1, keepdims=True)
    best = (costs_of_cuts <= least + 1e-6) & jnp.isfinite(costs_of_cuts)
    means = totals[:, :, :-1] / jnp.maximum(members[:, :, :-1], 1)
    cuts = jnp.broadcast_to(jnp.arange(1, bins, dtype=values.dtype), best.shape)
    found = jnp.stack([cuts, means[0], bins - means[1, :, ::-1]])
    threshold, lower, upper = jax.vmap(jax.vmap(masked_mean), (0, None))(found, best) * width + low
    gains = jnp.where(jnp.isfinite(least), number * (costs[0, :, -1:] - least), 0)[:, 0]
    return Groups(threshold, lower, upper, gains)


def _deviations(
    counts: Float[Array, " bins"],
    sums: Float[Array, " bins"],
    members: Float[Array, " bins"],
    totals: Float[Array, " bins"],
) -> Float[Array, " bins"]:
    """Sums of the distances from their median of the values in the first bins, for every number of bins.

    Args:
      counts: of the values in each bin.
      sums: of them.
      members: of the values in the first bins.
      totals: of them.
    """
    place = jnp.searchsorted(members, members / 2)
    missing = members / 2 - (members - counts)[place]
    nearer = (totals - sums)[place] + missing * (sums / jnp.maximum(counts, 1))[place]
    return totals - 2 * nearer
