"""Whether a group of images with one label shows one class or all of them, by the images themselves.

A network's features of an image with a trigger tell of the trigger, and may tell of nothing else. Its pixels still show
what the image was of. What a trigger adds to all images of a group goes with the group's mean; what is left of them, r,
varies like images of one class k, up to a contrast s, or like images of all other classes, of which class k is a share
p_k:

    one class:    log N(r; 0, s^2 S_k),
    all others:   log sum_k p_k N(r; s (m_k - m), s^2 S_k),

with the means m_k and the covariances S_k of the classes and the mean m of these others. The class's own S_k is that
around the means of its two groups, which no trigger shared by one of them shows in. The evidence is the highest
likelihood of the second, over s, less that of the first, over s and k, in nats per image. On photographs it is 3 to 25
where images got their label with a trigger, and below 0.5 where clean classes are cut in two, however that is done.

Source: ours.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxunlearn._typing import Images, Labels
from jaxunlearn.dau.groups import as_integers, count_labels, group_means, group_of

_SIDE = 8  # pixels of a thumbnail
_COMPONENTS = 48  # of thumbnails, those in which they vary most
_CONTRASTS = np.linspace(0.3, 1.1, 9)
_RIDGE = 1e-4  # added to the covariance, in means of its eigenvalues
_TINY = 1e-30


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
    """By how much a group looks like images of all other classes rather than of one, in nats per image.

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
      >>> [bool(told > 1) for told in evidence_of_mixtures(triggered, labels, poisoned, 4)[:, 0]]
      [False, True]
    """
    labels = as_integers(labels)
    places = _places(thumbnails, labels, classes)
    count, dims = places.shape
    everything = jnp.ones(count, bool)
    group = group_of(labels, lower, classes)
    sizes, members = count_labels(group, everything, 2 * classes), count_labels(labels, everything, classes)
    residues = places - group_means(places, group, 2 * classes)[group]
    means = group_means(places, labels, classes)
    others = (jnp.sum(places, axis=0) - members[:, None] * means) / jnp.maximum(count - members, 1)[:, None]
    contrasts = jnp.asarray(_CONTRASTS, places.dtype)[:, None]

    def of_group(values: Float[Array, "contrasts n"]) -> Float[Array, "contrasts groups"]:
        return jax.vmap(lambda one: jax.ops.segment_sum(one, group, 2 * classes))(values)

    def compare(
        carry: tuple[jax.Array, jax.Array], k: Int[Array, ""]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        mixed, single = carry
        known = members[k] > 1
        deviations = jnp.where((labels == k)[:, None], residues, 0)
        covariance = deviations.T @ deviations / jnp.maximum(members[k], 1)
        # Of few images little is known; the usual covariance is the identity here.
        own = members[k] / (members[k] + dims)
        factor = jnp.linalg.cholesky(own * covariance + (1 - own) * jnp.eye(dims, dtype=places.dtype))
        r, m = (
            jax.scipy.linalg.solve_triangular(factor, each.T, lower=True).T
            for each in (residues, means[k] - others)
        )
        volume = jnp.sum(jnp.log(jnp.diagonal(factor))) + dims * jnp.log(contrasts)
        square = jnp.sum(r**2, axis=1)
        alone = of_group(-square / (2 * contrasts**2) - volume)
        cross, apart = jnp.sum(r * m[labels], axis=1), jnp.sum(m**2, axis=1)[labels]
        share = jnp.log(jnp.maximum(members[k], 1)) - jnp.log(jnp.maximum(count - members, 1))[labels]
        among = share - (square / contrasts**2 - 2 * cross / contrasts + apart) / 2 - volume
        among = jnp.where(known & (labels != k), among, -jnp.inf)
        one = jnp.where(known, jnp.max(alone, axis=0), -jnp.inf)
        return (jnp.logaddexp(mixed, among), jnp.maximum(single, one)), None

    unlikely = jnp.asarray(-jnp.inf, places.dtype)
    start = jnp.broadcast_to(unlikely, (len(contrasts), count)), jnp.broadcast_to(unlikely, 2 * classes)
    (mixed, single), _ = jax.lax.scan(compare, start, jnp.arange(classes))
    told = jnp.max(of_group(mixed), axis=0) - single
    return jnp.where(sizes > 0, told / jnp.maximum(sizes, 1), 0).reshape(2, classes)


def _places(
    thumbnails: Float[Array, "n pixels"], labels: Int[Array, " n"], classes: int
) -> Float[Array, "n dims"]:
    """Places along the first principal components, in units in which the covariance within classes is the identity."""
    centred = thumbnails - jnp.mean(thumbnails, axis=0)
    _, components = jnp.linalg.eigh(centred.T @ centred)
    places = centred @ components[:, ::-1][:, :_COMPONENTS]
    deviations = places - group_means(places, labels, classes)[labels]
    covariance = deviations.T @ deviations / len(places)
    added = (_RIDGE * jnp.trace(covariance) / len(covariance) + _TINY) * jnp.eye(
        len(covariance), dtype=places.dtype
    )
    factor = jnp.linalg.cholesky(covariance + added)
    return jax.scipy.linalg.solve_triangular(factor, places.T, lower=True).T
