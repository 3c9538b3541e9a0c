"""Which neurons moved most, and what becomes of them.

A layer is known by the path of its kernel, whose last axis counts the neurons; the neurons of the last linear
layer are the classes. Of every neuron, s = sum_j |w_j - w0_j| over its weights, bias apart, says how far
unlearning moved it, and

    z = (s - median(s)) / (1.4826 median|s - median(s)|)

how much farther than its neighbours. A neuron with z above a threshold is an outlier.

Source: Min et al., "Unlearn to relearn backdoors", arXiv:2405.14781; official code.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxunlearn._random import uniform
from jaxunlearn._tree import head_kernel, named_leaves, partition, trainable_mask
from jaxunlearn._typing import Number, PRNGKey, Scalar, Variables

Kernel: TypeAlias = Float[Array, "..."]
"""Weights of a layer; the last axis counts its neurons."""

_NORMAL_MEDIAN = 1.4826
_NORMAL_MEAN = 1.2533
"""A normal distribution's standard deviation over its median, and over its mean, absolute deviation."""


class Outliers(NamedTuple):
    """How the neurons of a layer stand out.

    Attributes:
      z: robust z-score, positive above the median.
      outlying: whether it exceeds the threshold.
      degenerate: whether the median absolute deviation was zero and the mean one took its place.
    """

    z: Float[Array, " neurons"]
    outlying: Bool[Array, " neurons"]
    degenerate: Bool[Array, ""]


def layer_kernels(variables: Variables, head: str, layers: str) -> dict[str, Kernel]:
    """The trained kernels, by path, of the ``head`` and, unless ``layers`` is that, of the hidden layers.

    Example:
      >>> params = {"conv": {"kernel": jnp.ones((3, 3, 1, 8))}, "fc": {"kernel": jnp.ones((8, 2))}}
      >>> list(layer_kernels(params, "fc", "all"))
      ['conv/kernel', 'fc/kernel']
    """
    last = head_kernel(variables, head)
    return {
        name: leaf
        for name, leaf in named_leaves(partition(variables, trainable_mask(variables))[0]).items()
        if name == last or (layers != "head" and f"/{name}".endswith("/kernel"))
    }


def neuron_scores(before: Kernel, after: Kernel) -> Float[Array, " neurons"]:
    """s = sum_j |after_j - before_j| of every neuron.

    Example:
      >>> neuron_scores(jnp.zeros((2, 3)), jnp.array([[1.0, 0.0, -2.0], [1.0, 0.0, 1.0]])).tolist()
      [2.0, 0.0, 3.0]
    """
    return jnp.sum(jnp.abs(after - before), axis=tuple(range(before.ndim - 1)))


def mad_outliers(scores: Float[Array, " neurons"], threshold: Number) -> Outliers:
    """Finds the neurons that score far above the others, by the median absolute deviation (MAD).

    | scores                                     | deviation                             | outliers          |
    |--------------------------------------------|---------------------------------------|-------------------|
    | as usual                                   | 1.4826 MAD                            | z above threshold |
    | more than half alike (MAD vanishes)        | 1.2533 mean deviation from the median | z above threshold |
    | all alike (that vanishes as well), or one  | none; z is zero                       | none              |

    Medians are PyTorch's: of an even number of values, the lower of the two in the middle.

    Args:
      scores: of the neurons of a layer.
      threshold: the z-score from which on a neuron is an outlier.

    Source: the replacement is Iglewicz and Hoaglin, "How to detect and handle outliers", 1993.

    Example:
      >>> mad_outliers(jnp.array([1.0, 2.0, 3.0, 4.0, 90.0]), 3.5).outlying.tolist()
      [False, False, False, False, True]
    """
    away = scores - _lower_median(scores)
    deviations = jnp.abs(away)
    rounding = 8 * jnp.finfo(scores.dtype).eps * jnp.max(jnp.abs(scores))
    mad, mean = _lower_median(deviations), jnp.mean(deviations)
    degenerate = mad <= rounding
    scale = jnp.where(degenerate, _NORMAL_MEAN * mean, _NORMAL_MEDIAN * mad)
    z = jnp.where(mean <= rounding, 0, away / jnp.where(scale > 0, scale, 1))
    return Outliers(z, z > threshold, degenerate)


def suspicious(
    scores: Float[Array, " neurons"], outlying: Bool[Array, " neurons"], most: Number, order: str
) -> Bool[Array, " neurons"]:
    """Of the outliers at most ``most``: those of the largest ``score``, or of the smallest ``index``.

    Example:
      >>> suspicious(jnp.array([5.0, 1.0, 7.0, 6.0]), jnp.array([True, False, True, True]), 2, "score").tolist()
      [False, False, True, True]
    """
    first = -scores if order == "score" else jnp.arange(len(scores))
    rank = jnp.argsort(jnp.argsort(jnp.where(outlying, first, jnp.inf)))
    return outlying & (rank < most)


def reinitialise(
    variables: Variables, suspects: Mapping[str, Bool[Array, " neurons"]], key: PRNGKey
) -> Variables:
    """Draws the weights of suspicious neurons anew and sets their biases to zero.

    Uniform in (-b, b) with b = sqrt(2 / d), d the number of a neuron's weights.

    Args:
      variables: of a network.
      suspects: of the neurons of some layers, by the path of their kernels.
      key: of the drawing.

    Example:
      >>> params = {"fc": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
      >>> new = reinitialise(params, {"fc/kernel": jnp.array([False, True, False])}, jax.random.key(0))
      >>> new["fc"]["bias"].tolist()
      [1.0, 0.0, 1.0]
    """
    leaves = named_leaves(variables)
    for (name, mask), layer_key in zip(suspects.items(), jax.random.split(key, len(suspects)), strict=True):
        kernel = leaves[name]
        bound = (2 / (kernel.size // len(mask))) ** 0.5
        drawn = uniform(layer_key, kernel.shape, kernel.dtype, -bound, bound)
        leaves[name] = jnp.where(mask, drawn, kernel)
        bias = "/".join([*name.split("/")[:-1], "bias"])
        if bias in leaves and leaves[bias].shape == mask.shape:
            leaves[bias] = jnp.where(mask, 0, leaves[bias])
    return jax.tree.unflatten(jax.tree.structure(variables), list(leaves.values()))


def cosine_penalty(
    kernels: Mapping[str, Kernel],
    originals: Mapping[str, Kernel],
    suspects: Mapping[str, Bool[Array, " neurons"]],
) -> Scalar:
    """The sum over suspicious neurons of the cosine between their weights and what those were.

    Args:
      kernels: by path; those of other layers are ignored.
      originals: before unlearning.
      suspects: of the neurons of every layer, by the same paths.

    Example:
      >>> kernel, mask = jnp.array([[1.0, 2.0], [0.0, 2.0]]), jnp.array([False, True])
      >>> round(float(cosine_penalty({"fc": kernel}, {"fc": -kernel}, {"fc": mask})), 6)
      -1.0
    """
    cosines = (
        jnp.sum(jnp.where(mask, _cosines(kernels[name], originals[name]), 0))
        for name, mask in suspects.items()
    )
    return jnp.asarray(sum(cosines, 0.0))


def _cosines(first: Kernel, second: Kernel) -> Float[Array, " neurons"]:
    axes = tuple(range(first.ndim - 1))
    dots = jnp.sum(first * second, axes)
    # Squares before the root: its derivative at zero is infinite.
    squares = jnp.sum(first**2, axes) * jnp.sum(second**2, axes)
    return dots / jnp.sqrt(jnp.maximum(squares, 1e-16))


def _lower_median(values: Float[Array, " n"]) -> Scalar:
    return jnp.sort(values)[(len(values) - 1) // 2]
