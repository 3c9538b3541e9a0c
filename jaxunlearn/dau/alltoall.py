"""Whether all classes are attacked alike: triggered images of every class, given the label of another one.

Then the trigger is among what all classes vary in, and a class by itself is hardly unusual. But all of them fall into
the same two groups: there is one direction w along which the images of every class, measured from its mean, lie in the
same two places. It is looked for from each of the directions in which images of one class vary most: two groups along a
direction give Fisher's linear discriminant between them, w = S^-1 (mean of the upper group - mean of the lower group),
which gives two groups, and so on.

Other things set images of all classes apart: light, the camera, noise that the attack adds to images that keep their
labels. So the smaller group must be

* everywhere: its share of a class is at least a quarter of its share of all images, in classes that hold half of these;
* of all classes: the network's second guesses, of the classes but the label, tell as much about an image as only a
  mixture of classes does. Where noise looks like a trigger they all name the attack's class;
* strange: in the mean over its images, second guesses overlap by less than a half with those of the other images that
  have the same label. They name the class that an image was taken from.

Source: ours; the direction is that of Fisher, "The use of multiple measurements in taxonomic problems", 1936.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxunlearn._typing import Labels, Number, PRNGKey
from jaxunlearn.dau.splitting import (
    CLEAR,
    TELLING,
    Attacked,
    could_tell,
    count_labels,
    group_means,
    groups_by_class,
    guesses,
    information,
    minimum_error_groups,
    unit,
)

_STARTS = 16  # directions to begin with
_POWERS = 30  # steps of subspace iteration towards them
_TURNS = 8  # from groups to a direction and back
_EVERYWHERE, _THERE = 1 / 2, 1 / 4
_OVERLAP = 1 / 2


class Look(NamedTuple):
    """What one direction shows.

    Attributes:
      scores: places of the images along it.
      gain: how much better two groups describe these than one, in nats.
      smaller: marks the smaller group.
    """

    scores: Float[Array, "*looks n"]
    gain: Float[Array, "*looks"]
    smaller: Bool[Array, "*looks n"]


def attacked_alike(
    features: Float[Array, "n features"],
    whitened: Float[Array, "n features"],
    logits: Float[Array, "n classes"],
    labels: Labels,
    key: PRNGKey,
    *,
    gain: Number,
) -> tuple[Bool[Array, ""], Attacked]:
    """Whether the images of all classes fall into the same two groups, one of which was taken from other classes.

    Args:
      features: of the images.
      whitened: the same, by ``whiten``.
      logits: of the images, by the network as it came.
      labels: that it was trained with.
      key: of a start for directions.
      gain: least gain of all images together, in nats; and 0.06 for each image.

    Returns:
      Whether it is so, and what is known then: all images are one kind and divided together.

    Example:
      >>> from jaxunlearn.dau import whiten
      >>> source, poisoned = jnp.arange(800) % 4, jnp.arange(800) // 4 % 10 == 9
      >>> labels = (source + poisoned) % 4
      >>> logits = 5.0 * jax.nn.one_hot((labels + jnp.where(poisoned, 3, 2)) % 4, 4)
      >>> features = jax.random.normal(jax.random.key(0), (800, 5)).at[:, 3].add(9.0 * poisoned)
      >>> given = features, whiten(features, labels, 4), logits, labels, jax.random.key(1)
      >>> found, attacked = attacked_alike(*given, gain=60.0)
      >>> bool(found), bool((attacked.poisoned == poisoned).all())
      (True, True)
    """
    labels, classes = jnp.asarray(labels), logits.shape[1]
    looks = _look(whitened, _principal_scores(features, labels, classes, key))
    found = jax.lax.map(lambda smaller: _is_of_other_classes(smaller, logits, labels), looks.smaller)
    found = found & (looks.gain >= jnp.maximum(gain, CLEAR[0] * len(labels)))
    best = jax.tree.map(lambda leaf: leaf[jnp.argmax(jnp.where(found, looks.gain, -jnp.inf))], looks)
    gains = groups_by_class(best.scores, labels, classes).gain
    one_kind = jnp.zeros_like(labels)
    return jnp.any(found), Attacked(jnp.arange(classes) == 0, best.smaller, gains, one_kind)


def _principal_scores(
    features: Float[Array, "n features"], labels: Int[Array, " n"], classes: int, key: PRNGKey
) -> Float[Array, "starts n"]:
    """Places of the images along the directions in which images of one class vary most, by subspace iteration."""

    def along(directions: Float[Array, "features starts"]) -> Float[Array, "n starts"]:
        places = features @ directions
        return places - group_means(places, labels, classes)[labels]

    def power(_: Int[Array, ""], directions: jax.Array) -> jax.Array:
        return jnp.linalg.qr(features.T @ along(directions))[0]

    size = features.shape[1]
    start = jax.random.normal(key, (size, min(_STARTS, size)), features.dtype)
    places = along(jax.lax.fori_loop(0, _POWERS, power, start))
    _, turns = jnp.linalg.eigh(places.T @ places)
    return (places @ turns).T


def _look(whitened: Float[Array, "n features"], scores: Float[Array, "starts n"]) -> Look:
    """What Fisher's discriminants show that the groups along the starts lead to."""
    everything = jnp.ones(len(whitened), bool)

    def upper(scores: Float[Array, "starts n"]) -> tuple[Bool[Array, "starts n"], Float[Array, " starts"]]:
        groups = jax.lax.map(lambda one: minimum_error_groups(one, everything), scores)
        return scores > groups.threshold[:, None], groups.gain

    def turn(scores: jax.Array, _: None) -> tuple[jax.Array, None]:
        above = upper(scores)[0]
        means = [
            side @ whitened / jnp.maximum(jnp.sum(side, axis=1, keepdims=True), 1)
            for side in (above.astype(scores.dtype), (~above).astype(scores.dtype))
        ]
        return unit(means[0] - means[1]) @ whitened.T, None

    scores, _ = jax.lax.scan(turn, scores, None, length=_TURNS)
    above, gain = upper(scores)
    return Look(scores, gain, above == (jnp.mean(above, axis=1, keepdims=True) <= 0.5))


def _is_of_other_classes(
    group: Bool[Array, " n"], logits: Float[Array, "n classes"], labels: Int[Array, " n"]
) -> Bool[Array, ""]:
    """Whether the group is everywhere, of all classes, and strange."""
    classes = logits.shape[1]
    sizes, members = (count_labels(labels, some, classes) for some in (jnp.ones(len(labels), bool), group))
    there = members / jnp.maximum(sizes, 1) >= _THERE * jnp.mean(group)
    told = information(logits, labels, group.astype(int), 2)[1]
    means = group_means(jnp.exp(guesses(logits, labels)), labels + classes * group, 2 * classes)
    others, own = means.reshape(2, classes, classes)
    overlap = jnp.sum(jnp.minimum(others, own), axis=1)
    number = jnp.maximum(jnp.sum(members), 1)
    return (
        (jnp.sum(jnp.where(there, sizes, 0)) >= _EVERYWHERE * len(labels))
        & (told > TELLING * could_tell(classes))
        & (jnp.sum(members * overlap) < _OVERLAP * number)
    )
