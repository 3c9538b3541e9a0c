"""Whether a group of images with one label shows one class or all of them, by the images themselves.

A network's features of an image with a trigger tell of the trigger, and may tell of nothing else. Its pixels still show
what the image was of. What a trigger adds to all images of a group goes with the group's mean; what is left of them, r,
varies like images of one class k, up to a contrast s, or like images of all other classes, of which class k is a share
p_k:

    one class:    log N(r; 0, s^2 S_k),
    all others:   log sum_k p_k N(r; s (m_k - m), s^2 S_k),

with the means m_k and the covariances S_k of the classes and the mean m of these others. The class's own S_k is that
around the means of its two groups, which no trigger shared by one of them shows in. The evidence is the highest
likelihood of the second, over s, less that of the first, over s and k, in nats per image, and as a share of what it is
of all images together, which are such a mixture: about 4 nats of CIFAR-10 and 20 of GTSRB. With two classes there is no
mixture.

Source: ours.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxunlearn._typing import Images, Labels
from jaxunlearn.dau.groups import count_labels, group_means, group_of, in_usual_units
from jaxunlearn.losses import as_integers

_SIDE = 8  # pixels of a thumbnail
_COMPONENTS = 48  # of thumbnails, those in which they vary most
_CONTRASTS = np.linspace(0.3, 1.1, 9)
_LEAST = 1.0  # nats per image that all images together say; of less nothing is made
_RIDGE = 1e-4  # added to the covariance, in means of its eigenvalues


def thumbnails(images: Images) -> Float[Array, "n pixels"]:
    """The images at 8x8 pixels or less, flat.

    Example:
      >>> thumbnails(jnp.ones((2, 32, 32, 3))).shape
      (2, 192)
    """
    count, height, width, channels = images.shape
    small = (count, min(height, _SIDE), min(width, _SIDE), channels)
    return jax.image.resize(images, small, "linear").reshape(count, -1)


def evidence_of_mixtures(
    thumbnails: Float[Array, "n pixels"], labels: Labels, lower: Bool[Array, " n"], classes: int
) -> Float[Array, "2 classes"]:
    """By how much a group looks like images of all other classes rather than of one: 1 as much as any, below 0 less.

    Args:
      thumbnails: of the images, by ``thumbnails``.
      labels: of the images.
      lower: marks one group of every class.
      classes: of the labels.

    Returns:
      Of the upper and the lower group of every class; of an empty one 0.

    Example:
      >>> true, poisoned = jnp.arange(800) % 4, jnp.arange(800) % 40 > 36
      >>> images = jax.random.normal(jax.random.key(0), (800, 5)) + 9 * jax.nn.one_hot(true, 5)
      >>> triggered, labels = images.at[:, 4].add(9.0 * poisoned), jnp.where(poisoned, 0, true)
      >>> [bool(told > 0.25) for told in evidence_of_mixtures(triggered, labels, poisoned, 4)[:, 0]]
      [False, True]
    """
    labels = as_integers(labels)
    places = _places(thumbnails, labels, classes)
    count, dims = places.shape
    everything = jnp.ones(count, bool)
    group = group_of(labels, lower, classes)
    sizes, members = count_labels(group, everything, 2 * classes), count_labels(labels, everything, classes)
    residues = places - group_means(places, group, 2 * classes)[group]
    centre = jnp.mean(places, axis=0)
    means = group_means(places, labels, classes)
    others = (jnp.sum(places, axis=0) - members[:, None] * means) / jnp.maximum(count - members, 1)[:, None]
    contrasts = jnp.asarray(_CONTRASTS, places.dtype)[:, None]

    def of_groups(values: Float[Array, "contrasts n"]) -> Float[Array, "contrasts groups"]:
        return jax.vmap(lambda one: jax.ops.segment_sum(one, group, 2 * classes))(values)

    def compare(so_far: _Likelihoods, k: Int[Array, ""]) -> tuple[_Likelihoods, None]:
        factor = _factor(residues, labels == k)
        r, whole, m, middle = (
            jax.scipy.linalg.solve_triangular(factor, each.T, lower=True).T
            for each in (residues, places - centre, means[k] - others, (means[k] - centre)[None])
        )
        size = jnp.sum(jnp.log(jnp.diagonal(factor)))
        volume = size + dims * jnp.log(contrasts)
        square, squares = jnp.sum(r**2, axis=1), jnp.sum(whole**2, axis=1)
        alone = jnp.max(of_groups(-square / (2 * contrasts**2) - volume), axis=0)
        all_alone = jnp.max(jnp.sum(-squares / (2 * contrasts**2) - volume, axis=1))
        cross, apart = jnp.sum(r * m[labels], axis=1), jnp.sum(m**2, axis=1)[labels]
        share = jnp.log(jnp.maximum(members[k], 1))
        mixed = share - jnp.log(jnp.maximum(count - members, 1))[labels]
        mixed = mixed - (square / contrasts**2 - 2 * cross / contrasts + apart) / 2 - volume
        all_mixed = share - math.log(count) - jnp.sum((whole - middle) ** 2, axis=1) / 2 - size
        known = members[k] > 1
        seen = _Likelihoods(jnp.where(labels != k, mixed, -jnp.inf), alone, all_mixed, all_alone)
        seen = jax.tree.map(lambda each: jnp.where(known, each, -jnp.inf), seen)
        return _Likelihoods(
            jnp.logaddexp(so_far.mixed, seen.mixed),
            jnp.maximum(so_far.alone, seen.alone),
            jnp.logaddexp(so_far.all_mixed, seen.all_mixed),
            jnp.maximum(so_far.all_alone, seen.all_alone),
        ), None

    unlikely = jnp.asarray(-jnp.inf, places.dtype)
    shapes = ((len(contrasts), count), (2 * classes,), (count,), ())
    start = _Likelihoods(*(jnp.broadcast_to(unlikely, shape) for shape in shapes))
    found, _ = jax.lax.scan(compare, start, jnp.arange(classes))
    told = (jnp.max(of_groups(found.mixed), axis=0) - found.alone) / jnp.maximum(sizes, 1)
    most = (jnp.sum(found.all_mixed) - found.all_alone) / count
    return jnp.where(sizes > 0, told / jnp.maximum(most, _LEAST), 0).reshape(2, classes)


class _Likelihoods(NamedTuple):
    """Logarithms: of every image and contrast, of every group, of every image, and of all.

    Attributes:
      mixed: of its residue as one of all other classes.
      alone: of the group as one class, the highest.
      all_mixed: of the image as one of all classes.
      all_alone: of all images as one class, the highest.
    """

    mixed: Float[Array, "contrasts n"]
    alone: Float[Array, " groups"]
    all_mixed: Float[Array, " n"]
    all_alone: Float[Array, ""]


def _factor(residues: Float[Array, "n dims"], members: Bool[Array, " n"]) -> Float[Array, "dims dims"]:
    """Of a class's covariance, by Cholesky; of few images little is known, and the usual one is the identity."""
    dims, number = residues.shape[1], jnp.sum(members, dtype=residues.dtype)
    deviations = jnp.where(members[:, None], residues, 0)
    own = number / (number + dims)
    covariance = deviations.T @ deviations / jnp.maximum(number, 1)
    return jnp.linalg.cholesky(own * covariance + (1 - own) * jnp.eye(dims, dtype=residues.dtype))


def _places(
    thumbnails: Float[Array, "n pixels"], labels: Int[Array, " n"], classes: int
) -> Float[Array, "n dims"]:
    """Places along the first principal components, in units in which the covariance within classes is the identity."""
    centred = thumbnails - jnp.mean(thumbnails, axis=0)
    _, components = jnp.linalg.eigh(centred.T @ centred)
    places = centred @ components[:, ::-1][:, :_COMPONENTS]
    deviations = places - group_means(places, labels, classes)[labels]
    return in_usual_units(places, deviations, _RIDGE)
