"""Whether all classes are attacked alike: triggered images of every class, given the label of another one.

Then the trigger is among what all classes vary in, and a class by itself is hardly unusual. But all of them fall into
the same two groups: there is one direction w along which the images of every class, measured from its mean, lie in the
same two places. It is looked for from both ends of the directions in which images of one class vary most. Images at one
end, a twentieth of every class, and the others give Fisher's linear discriminant between them,

    w = S^-1 (mean of the images at that end - mean of the others),

which has other images at its end, and so on; the last turns take the two groups along w in place of its ends, so that
classes may have shares of their own. Of few images and many features some direction always divides those that it was
found with. So half of the images have no say in w, and these must fall into two groups along it.

Other things set images of all classes apart: light, the camera, noise that the attack adds to images that keep their
labels. So the smaller group of that half must be

* everywhere: its share of a class is at least a quarter of its share of all, in classes that hold half of the images;
* strange: the network's second guesses, of the classes but the label, overlap in the mean over its images by less than
  six tenths with those of the other images that have the same label. They name the class that an image was taken from;
* from many classes: no class is the first of the second guesses, in the mean over a label's images in the group, for
  labels that have half of it. Where noise looks like a trigger they all name the attack's class.

Source: ours; the direction is that of Fisher, "The use of multiple measurements in taxonomic problems", 1936.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxunlearn._typing import Labels, Number, PRNGKey
from jaxunlearn.dau.groups import (
    count_labels,
    group_means,
    groups_by_class,
    minimum_error_groups,
)
from jaxunlearn.dau.splitting import Attacked, guesses, lowest, principal_scores, unit
from jaxunlearn.losses import as_integers

_STARTS = 16  # directions to begin with
_END = 0.05  # share of every class at the end of a direction
_TURNS = 5  # from ends to a direction and back, and then from groups
_CLEAR = 0.1  # least gain per image, in nats
_EVERYWHERE, _THERE = 1 / 2, 1 / 4
_OVERLAP = 0.6
_FROM_ONE = 1 / 2


class Look(NamedTuple):
    """What directions show.

    Attributes:
      scores: places of the images along each.
      upper: marks the upper group of all images.
      gain: how much better two groups describe an image than one, in nats; of ``_look`` one that had no say in them.
    """

    scores: Float[Array, "*looks n"]
    upper: Bool[Array, "*looks n"]
    gain: Float[Array, "*looks"]


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
      gain: least gain, in nats: that of an image which had no say in the direction, times their number; and a tenth for
        each image.

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
    labels, classes = as_integers(labels), logits.shape[1]
    first_key, half_key = jax.random.split(key)
    deviations, together = features - group_means(features, labels, classes)[labels], jnp.zeros_like(labels)
    starts = principal_scores(deviations, together, 1, first_key, _STARTS)
    half = jax.random.permutation(half_key, len(labels)) % 2 == 0
    looks = _look(whitened, jnp.concatenate([starts, -starts]), labels, classes, half)
    others = _smaller(looks.upper, ~half)
    found = jax.lax.map(lambda group: _is_of_other_classes(group, ~half, logits, labels), others)
    found = found & (looks.gain * len(labels) >= gain) & (looks.gain >= _CLEAR)
    best = jnp.argmax(jnp.where(found, looks.gain, -jnp.inf))
    everything = jnp.ones_like(half)
    last = _by_groups(whitened, looks.upper[best][None], everything)
    gains = groups_by_class(last.scores[0], labels, classes).gain
    poisoned = _smaller(last.upper, everything)[0]
    attacked = Attacked(
        classes=jnp.arange(classes) == 0,
        poisoned=poisoned,
        gains=gains,
        kinds=jnp.zeros_like(labels),
        clearness=gains,
        smaller=poisoned,
    )
    return jnp.any(found), attacked


def _look(
    whitened: Float[Array, "n features"],
    scores: Float[Array, "starts n"],
    labels: Int[Array, " n"],
    classes: int,
    half: Bool[Array, " n"],
) -> Look:
    """What the discriminants show that the starts lead to; a half of the images has no say in them."""

    def turn(scores: jax.Array, _: None) -> tuple[jax.Array, None]:
        ends = jax.lax.map(lambda one: lowest(-one, labels, _END, classes), scores)
        return _between(whitened, ends, half), None

    scores, _ = jax.lax.scan(turn, scores, None, length=_TURNS)
    look = _by_groups(whitened, _groups(scores, half).upper, half)
    return look._replace(gain=_groups(look.scores, ~half).gain)


def _by_groups(
    whitened: Float[Array, "n features"], upper: Bool[Array, "starts n"], said: Bool[Array, " n"]
) -> Look:
    """What the discriminants show that groups lead to; ``said`` marks images that have a say."""

    def turn(look: Look, _: None) -> tuple[Look, None]:
        return _groups(_between(whitened, look.upper, said), said), None

    start = Look(jnp.zeros(upper.shape, whitened.dtype), upper, jnp.zeros(len(upper), whitened.dtype))
    return jax.lax.scan(turn, start, None, length=_TURNS + 1)[0]


def _between(
    whitened: Float[Array, "n features"], upper: Bool[Array, "starts n"], said: Bool[Array, " n"]
) -> Float[Array, "starts n"]:
    """Places of the images along Fisher's linear discriminants between the upper and the lower ones."""
    means = [
        side @ whitened / jnp.maximum(jnp.sum(side, axis=1, keepdims=True), 1)
        for side in ((upper & said).astype(whitened.dtype), (~upper & said).astype(whitened.dtype))
    ]
    return unit(means[0] - means[1]) @ whitened.T


def _groups(scores: Float[Array, "starts n"], said: Bool[Array, " n"]) -> Look:
    """The groups of the images that have a say, to which the others go as well."""
    found = jax.lax.map(lambda one: minimum_error_groups(one, said), scores)
    return Look(scores, scores > found.threshold[:, None], found.gain / jnp.maximum(jnp.sum(said), 1))


def _smaller(upper: Bool[Array, "looks n"], among: Bool[Array, " n"]) -> Bool[Array, "looks n"]:
    """Marks the smaller group of some images."""
    share = jnp.sum(upper & among, axis=1, keepdims=True) / jnp.maximum(jnp.sum(among), 1)
    return (upper == (share <= 0.5)) & among


def _is_of_other_classes(
    group: Bool[Array, " n"],
    among: Bool[Array, " n"],
    logits: Float[Array, "n classes"],
    labels: Int[Array, " n"],
) -> Bool[Array, ""]:
    """Whether the group, among some images, is everywhere, strange, and from many classes."""
    classes = logits.shape[1]
    sizes, members = (count_labels(labels, some, classes) for some in (among, group))
    number = jnp.maximum(jnp.sum(members), 1)
    share = number / jnp.maximum(jnp.sum(sizes), 1)
    there = members >= _THERE * share * sizes
    sides = jnp.where(among, labels + classes * group, 2 * classes)
    means = group_means(jnp.exp(guesses(logits, labels)), sides, 2 * classes + 1)[:-1]
    others, own = means.reshape(2, classes, classes)
    overlap = jnp.sum(jnp.minimum(others, own), axis=1)
    sources = jax.ops.segment_sum(members, jnp.argmax(own, axis=1), classes)
    return (
        (jnp.sum(jnp.where(there, sizes, 0)) >= _EVERYWHERE * jnp.sum(sizes))
        & (jnp.sum(members * overlap) < _OVERLAP * number)
        & (jnp.max(sources) < _FROM_ONE * number)
    )
