"""Which training images are poisoned: two groups within a class, and a discriminator that tells them apart.

The features of the backdoored network stay as they are. What images of one class differ in is much the same in all
classes: light, pose, background. A trigger is not among that. So a class is looked at along the direction w in which
its features vary most, measured by what is usual,

    max_w  w^T S_c w / w^T S w,

S_c being their covariance in the class and S that within all classes, plus a multiple of the identity (``RIDGES``). If
the class is attacked its images form two groups along w. If all are attacked alike that is no help
(``jaxunlearn.dau.alltoall``). A few poisoned images in a large class are not what it varies most in, but they are among
it: in the space of its first eight such directions w is turned until the groups along it are clearest, from each of the
eight, and from the direction of the suspects P_0, which a pre-filter names. A turn goes from two groups along w to the
w between their means, and to the two groups along that (projection pursuit). Among many features anything can be found,
among eight directions hardly.

Which of the two is poisoned? Poison that was given its label comes from all classes. The images themselves show it
(``jaxunlearn.dau.content``), and then the groups need be half as clear. So do the network's second guesses, of the
classes but the label: they tell more about a poisoned image than about a clean one. Where neither are those of a
mixture of all classes, because the poison was not relabelled or the trigger drowns the rest, it is the group with the
suspects, if five times as large a share of it is suspected; else the group whose second guesses are many and tell a
third more, and is at most two thirds of the class. Where none of this holds the two groups are kinds of clean images.
Suspects and a third more are weaker reasons than a mixture of all classes, and the groups must be clearer for them.
Poison is relabelled or it is not: where images or second guesses tell of one class, suspects alone make no other one an
attacked class.

Then a discriminator generalises from the group. In one form the network's last layer g is retrained like the
discriminator of a generative adversarial network, with the label as what is real,

    L_D = mean_{i not in P_0} -log g(y_i | x_i) + mu mean_{i in P_0} -log(1 - g(y_i | x_i)),

P_0 being the poisoned group now. A trigger's features come to speak against the label even of poisoned images outside
P_0: if these are a share pi of the rest and q of P_0 is poisoned, the label's probability is drawn to pi / (pi + mu q).
Clean images that are hard have improbable labels too, so that an image's score is the change of its label's log-odds
from a layer that was retrained in the same way without P_0. The other form is Fisher's linear discriminant between the
groups, with the same S. In each class the one counts that shows the clearer groups.

Source: ours. The abstract of DAU (github.com/MiLab-HITSZ/DAU) says that the extractor is frozen and the classifier
retrained on a small pre-filtered poisoned set as a discriminator; the loss, the thresholds and all numbers are not
published. Covariances that all classes share are those of Tang et al., "Demon in the variant", USENIX Security 2021;
pursuit is that of Friedman and Tukey, "A projection pursuit algorithm for exploratory data analysis", 1974;
isolation, one way to name P_0, is that of Li et al., "Anti-backdoor learning", NeurIPS 2021.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxunlearn import _loop
from jaxunlearn._check import check_in
from jaxunlearn._optimizers import momentum_step
from jaxunlearn._typing import Labels, Number, PRNGKey, Scalar
from jaxunlearn.dau.config import ISOLATING
from jaxunlearn.dau.content import evidence_of_mixtures
from jaxunlearn.dau.groups import (
    TINY,
    Groups,
    count_labels,
    group_means,
    group_of,
    groups_by_class,
    in_usual_units,
)
from jaxunlearn.losses import as_integers, complementary_cross_entropy

RIDGES = (1.0, 0.01)  # added to the covariance, in means of its eigenvalues; the first divides classes
_CLEAR = (1 / 1000, 1 / 240)  # of the least gain, per image of a class, with each of them
_LANCZOS = 60  # vectors, to find the direction in which a class varies most
_ROUNDING = 1e-5  # share of a vector; what is left of it below that is no direction
_LEAST_OF_GAINS = 0.25
_DIRECTIONS = 8  # of a class, in which it varies most
_PURSUED = 6  # turns towards the clearest groups
_TELLING = 2 / 3  # of what second guesses could tell; what only a mixture of classes tells
_TELLING_MORE, _MORE = 1 / 2, 4 / 3  # of the same; and of what the other group's tell
_MAJORITY = 2 / 3  # of a class; the rest may be a series of pictures, whose guesses always tell less
_WEAK = 2  # times the gain, where guesses tell of no such mixture; per image the higher of both limits
_CONCENTRATED = 5  # times the other group's share of suspects
_MIXED = 1 / 4  # of what all images together show of a mixture; what only a mixture shows
_SHOWN = 1 / 2  # times the gain, in all and per image, where images show it
_NO_INFORMATION = 0.01  # nats, added so that hardly any is no less than none


class Head(NamedTuple):
    """A last linear layer."""

    kernel: Float[Array, "features classes"]
    bias: Float[Array, " classes"]

    def __call__(self, features: Float[Array, "n features"]) -> Float[Array, "n classes"]:
        """Logits."""
        return features @ self.kernel + self.bias


class Parts(NamedTuple):
    """A division of the training images; those in neither part are left out.

    Attributes:
      poisoned: marks what is unlearned.
      clean: marks what is learned.
    """

    poisoned: Bool[Array, " n"]
    clean: Bool[Array, " n"]


def isolation_loss(loss: Number, kind: str, level: Number) -> Scalar:
    """What a fresh network descends on, so that only images which are learned fast end with a low loss.

    ``lga`` (local gradient ascent): sign(l - level) l; ``flooding``: |l - level| + level; ``early``: l.

    Args:
      loss: l, the mean cross-entropy of a batch, in nats.
      kind: of the three.
      level: in nats.

    Raises:
      ValueError: if there is no such kind.

    Source: Li et al., 2021; Ishida et al., "Do we need zero training loss after achieving zero training error?", 2020.

    Example:
      >>> [float(isolation_loss(jnp.asarray(0.25), kind, 0.5)) for kind in ("lga", "flooding", "early")]
      [-0.25, 0.75, 0.25]
    """
    check_in(ISOLATING, kind=kind)
    loss = jnp.asarray(loss)
    if kind == "lga":
        return jax.lax.stop_gradient(jnp.sign(loss - level)) * loss
    return jnp.abs(loss - level) + level if kind == "flooding" else loss


def lowest(values: Float[Array, " n"], labels: Labels, share: Number, classes: int) -> Bool[Array, " n"]:
    """Marks that share of the images of every class, rounded up, whose values are lowest.

    Example:
      >>> lowest(jnp.array([3.0, 1.0, 2.0, 4.0, 9.0, 8.0]), jnp.arange(6) // 4, 0.5, 2).tolist()
      [False, True, True, False, False, True]
    """
    labels = as_integers(labels)
    counts = count_labels(labels, jnp.ones(len(labels), bool), classes)
    # A product just above a whole number is that number.
    return _ranks(values, labels, counts) < jnp.ceil(share * counts - 1e-4)[labels]


def _ranks(
    values: Float[Array, " n"], groups: Int[Array, " n"], sizes: Float[Array, " groups"]
) -> Float[Array, " n"]:
    """Of the values in their group, from 0."""
    starts = jnp.cumsum(sizes) - sizes
    return jnp.argsort(jnp.lexsort((values, groups))) - starts[groups]


def discriminate(
    features: Float[Array, "n features"],
    labels: Labels,
    suspects: Bool[Array, " n"],
    head: Head,
    key: PRNGKey,
    *,
    steps: int,
    batch_size: int,
    suspect_batch_size: int,
    rate: Number,
    momentum: Number,
    weight_decay: Number,
    suspect_weight: Number,
) -> Float[Array, " n"]:
    """Retrains a last layer to doubt the labels of images like the suspects.

    Args:
      features: of all training images, by the frozen network.
      labels: that they were trained with.
      suspects: P_0.
      head: the network's own last layer, where it starts.
      key: of the order.
      steps: of gradient descent.
      batch_size: others in a step.
      suspect_batch_size: suspects in a step.
      rate: learning rate, for features of unit root mean square norm, which they are scaled to.
      momentum: share of the velocity that stays.
      weight_decay: of the layer, so scaled.
      suspect_weight: mu.

    Returns:
      The log-odds of every image's label.

    Example:
      >>> features = jnp.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 0, 1]]).repeat(4, axis=0)
      >>> labels, suspects = jnp.array([0, 1, 1, 1]).repeat(4), jnp.arange(16) == 8
      >>> sizes = dict(steps=100, batch_size=8, suspect_batch_size=4)
      >>> settings = dict(rate=0.5, momentum=0.9, weight_decay=0.0, suspect_weight=9.0)
      >>> start = Head(jnp.zeros((3, 2)), jnp.zeros(2))
      >>> odds = discriminate(features, labels, suspects, start, jax.random.key(0), **sizes, **settings)
      >>> (odds > 0)[::4].tolist()
      [True, True, False, False]
    """
    others_key, suspects_key = jax.random.split(key)
    rows = (
        _loop.rows_of(~suspects, steps, batch_size, others_key),
        _loop.rows_of(suspects, steps, suspect_batch_size, suspects_key),
    )
    labels = as_integers(labels)
    size = jnp.sqrt(jnp.mean(jnp.sum(features**2, axis=1)) + 1e-12)
    scaled = features / size

    def loss_fn(head: Head, others: jax.Array, doubted: jax.Array) -> Scalar:
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(head(scaled[others]), labels[others])
        doubt = complementary_cross_entropy(head(scaled[doubted]), labels[doubted])
        return jnp.mean(cross_entropy) + suspect_weight * jnp.mean(doubt)

    def step(carry: tuple[Head, Head], x: tuple[jax.Array, jax.Array]) -> tuple[tuple[Head, Head], None]:
        now, velocity = carry
        gradient = jax.grad(loss_fn)(now, *x)
        return momentum_step(
            now, velocity, gradient, rate=rate, momentum=momentum, weight_decay=weight_decay
        ), None

    start = Head(head.kernel * size, head.bias)
    (trained, _), _ = jax.lax.scan(step, (start, optax.tree.zeros_like(start)), rows)
    return label_log_odds(trained(scaled), labels)


def label_doubts(logits: Float[Array, "n classes"], labels: Labels) -> Float[Array, " n"]:
    """1 - p of the probability p that an answer gives to each image's label, in single precision at least.

    It is exact where p rounds to one.

    Example:
      >>> [f"{doubt:.1e}" for doubt in label_doubts(jnp.array([[40.0, 0.0], [0.0, 0.0]]), jnp.array([0, 0]))]
      ['4.2e-18', '5.0e-01']
    """
    loss = complementary_cross_entropy(logits, labels)
    return jnp.exp(-loss.astype(jnp.promote_types(loss.dtype, jnp.float32)))


def label_log_odds(logits: Float[Array, "n classes"], labels: Labels) -> Float[Array, " n"]:
    """log(p / (1 - p)) of the probability p that an answer gives to each image's label; exact where p rounds to one.

    Example:
      >>> label_log_odds(jnp.array([[99.0, 0.0]]), jnp.array([0])).tolist()
      [99.0]
    """
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return complementary_cross_entropy(logits, labels) - cross_entropy


def whiten(
    features: Float[Array, "n features"], labels: Labels, classes: int, ridge: Number = RIDGES[0]
) -> Float[Array, "n features"]:
    """What the images of a class differ in, in units of what is usual (``in_usual_units``).

    Args:
      features: f, of the images.
      labels: of the images.
      classes: of the labels.
      ridge: share of the mean eigenvalue of the covariance within classes that is added to each to give S.

    Example:
      >>> features = jnp.array([[0.0, 0.0], [2.0, 0.0], [5.0, 1.0], [5.0, 1.0]])
      >>> [round(float(one), 3) for one in whiten(features, jnp.array([0, 0, 1, 1]), 2)[:, 0]]
      [-1.155, 1.155, 0.0, 0.0]
    """
    labels = as_integers(labels)
    deviations = features - group_means(features, labels, classes)[labels]
    return in_usual_units(deviations, deviations, ridge)


def principal_scores(
    whitened: Float[Array, "n features"], labels: Labels, classes: int, key: PRNGKey, number: int = 1
) -> Float[Array, "number n"]:
    """Places of the images along the directions in which their class varies most; which end is which is open.

    The leading eigenvectors of every class by Lanczos' method from a random start, all vectors kept orthogonal: several
    directions vary nearly as much as the first, and a power iteration would end in a mixture of them.

    Args:
      whitened: features of the images.
      labels: of the images.
      classes: of the labels.
      key: of the start.
      number: of directions, the first first; as many as there are features at most.

    Example:
      >>> features = jax.random.normal(jax.random.key(0), (200, 5)).at[:10, 3].add(9.0)
      >>> labels = jnp.arange(200) // 100
      >>> scores = principal_scores(whiten(features, labels, 2), labels, 2, jax.random.key(1))[0]
      >>> sorted(jnp.argsort(-jnp.abs(scores[:100]))[:10].tolist())
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    labels, size = as_integers(labels), whitened.shape[1]
    vectors = min(_LANCZOS, size)
    first = jax.random.normal(key, (classes, size), whitened.dtype)
    basis = jnp.zeros((vectors, classes, size), whitened.dtype).at[0].set(unit(first))

    def extend(basis: jax.Array, place: Int[Array, ""]) -> tuple[jax.Array, jax.Array]:
        scores = _along(whitened, basis[place], labels)
        varied = jax.ops.segment_sum(whitened * scores[:, None], labels, classes)
        new = varied
        for _ in range(2):  # what rounding leaves of the others the second time takes away
            new = new - jnp.einsum("kcf,kc->cf", basis, jnp.einsum("kcf,cf->kc", basis, new))
        least = _ROUNDING * jnp.linalg.norm(varied, axis=1)
        return basis.at[place + 1].set(unit(new, least), mode="drop"), varied

    basis, varied = jax.lax.scan(extend, basis, jnp.arange(vectors))
    _, turns = jnp.linalg.eigh(jnp.einsum("kcf,lcf->ckl", basis, varied))
    directions = jnp.einsum("cks,kcf->scf", turns[..., ::-1][..., :number], basis)
    return jax.lax.map(lambda one: _along(whitened, one, labels), directions)


def fisher_scores(
    whitened: Float[Array, "n features"], labels: Labels, lower: Bool[Array, " n"], classes: int
) -> Float[Array, " n"]:
    """Places of the images along Fisher's linear discriminant between the two groups of their class.

    w = S^-1 (mean of the upper group - mean of the lower group), in units of S.

    Args:
      whitened: features of the images.
      labels: of the images.
      lower: marks one group.
      classes: of the labels.

    Example:
      >>> features = jnp.array([[0.0, 0.0], [0.0, 9.0], [1.0, 0.0], [1.0, 9.0]])
      >>> labels, lower = jnp.zeros(4, int), jnp.array([True, True, False, False])
      >>> scores = fisher_scores(whiten(features, labels, 1), labels, lower, 1)
      >>> bool(scores[:2].max() < scores[2:].min())
      True
    """
    labels = as_integers(labels)
    return _along(whitened, _between(whitened, labels, lower, classes), labels)


def clearest_groups(
    whitened: Float[Array, "n features"],
    labels: Labels,
    suspects: Bool[Array, " n"],
    classes: int,
    key: PRNGKey,
) -> tuple[Float[Array, " n"], Groups]:
    """The direction along which each class falls most clearly into two groups: places of the images, and the groups.

    Among those in the space of the eight directions in which the class varies most. A search starts along each of them,
    and one between suspects and others; a turn goes from a direction to the groups along it, and to the direction
    between their means. Of all directions on these ways that with the highest gain counts.

    Args:
      whitened: features of the images.
      labels: of the images.
      suspects: P_0.
      classes: of the labels.
      key: of a start for directions.

    Example:
      >>> features = jax.random.normal(jax.random.key(0), (400, 5)) * jnp.array([3.0, 1, 1, 1, 1])
      >>> labels, suspects = jnp.arange(400) // 200, jnp.arange(400) % 20 == 0
      >>> whitened = whiten(features.at[:10, 3].add(9.0), labels, 2)
      >>> scores, groups = clearest_groups(whitened, labels, suspects, 2, jax.random.key(1))
      >>> sorted(jnp.argsort(-jnp.abs(scores[:200]))[:10].tolist())
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
      >>> bool(groups.gain[0] > 40 > groups.gain[1])
      True
    """
    labels = as_integers(labels)
    places = principal_scores(whitened, labels, classes, key, _DIRECTIONS).T

    def turn(direction: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, Groups]]:
        scores = _along(places, direction, labels)
        groups = groups_by_class(scores, labels, classes)
        lower = scores <= groups.threshold[labels]
        return _between(places, labels, lower, classes), (direction, groups)

    axes = jnp.eye(places.shape[1], dtype=places.dtype)
    along_axes = jnp.broadcast_to(axes[:, None], (len(axes), classes, len(axes)))
    starts = jnp.concatenate([along_axes, _between(places, labels, suspects, classes)[None]])
    ways = jax.vmap(lambda start: jax.lax.scan(turn, start, None, length=_PURSUED + 1)[1])(starts)
    directions, groups = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), ways)
    best = jnp.argmax(groups.gain, axis=0)
    direction, groups = jax.tree.map(lambda leaf: leaf[best, jnp.arange(classes)], (directions, groups))
    return _along(places, direction, labels), groups


def _between(
    whitened: Float[Array, "n k"], labels: Int[Array, " n"], lower: Bool[Array, " n"], classes: int
) -> Float[Array, "classes k"]:
    """Directions from the lower group of every class to its upper one, at length one."""
    means = group_means(whitened, group_of(labels, lower, classes), 2 * classes)
    return unit(means[:classes] - means[classes:])


def _along(
    whitened: Float[Array, "n features"], directions: Float[Array, "classes features"], labels: Labels
) -> Float[Array, " n"]:
    """Places of the images along the direction of their class."""
    return jnp.sum(whitened * directions[labels], axis=1)


def unit(vectors: Float[Array, "classes features"], least: Number | jax.Array = 0.0) -> jax.Array:
    """The vectors at length one; zero where they are no longer than ``least``."""
    lengths = jnp.linalg.norm(vectors, axis=1)
    return jnp.where(lengths > least, 1 / jnp.where(lengths > least, lengths, 1), 0)[:, None] * vectors


def second_guesses(
    logits: Float[Array, "n classes"], labels: Labels, lower: Bool[Array, " n"]
) -> Float[Array, "2 classes"]:
    """How much the second guess, among the classes but the label, tells about an image of a group, in nats.

    The mutual information of image and guess, sum_k p_k log p_k in the mean minus sum_k q_k log q_k for the mean q of
    p: near 0 if all images of the group give the same answer, near log(classes - 1) if each is sure of another one.
    The mean of a group's logits is taken away first, and with it what a trigger adds to all of them.

    Args:
      logits: of the images.
      labels: of the images, which are no guesses.
      lower: marks one group of every class.

    Returns:
      Of the upper and the lower group of every class.

    Example:
      >>> logits = jnp.array([[0.0, 99, 0], [0, 0, 99], [0, 9, 9], [0, 9, 9]])
      >>> second_guesses(logits, jnp.zeros(4, int), jnp.arange(4) < 2)[:, 0].round(2).tolist()
      [0.0, 0.6899999976158142]
    """
    classes = logits.shape[1]
    group = group_of(as_integers(labels), lower, classes)
    log_p = guesses(logits - group_means(logits, group, 2 * classes)[group], labels)
    p = jnp.exp(log_p)
    told = jnp.sum(jnp.where(p > 0, p * log_p, 0), axis=1)
    mean = group_means(p, group, 2 * classes)
    surprise = jnp.sum(jax.scipy.special.xlogy(mean, mean), axis=1)
    return (group_means(told[:, None], group, 2 * classes)[:, 0] - surprise).reshape(2, classes)


def guesses(logits: Float[Array, "n classes"], labels: Labels) -> Float[Array, "n classes"]:
    """Logarithms of the probabilities of the classes but the label, whose own is -inf."""
    own = jax.nn.one_hot(as_integers(labels), logits.shape[1], dtype=bool)
    return jax.nn.log_softmax(jnp.where(own, -jnp.inf, logits), axis=1)


class Attacked(NamedTuple):
    """What is known of attacks.

    Attributes:
      classes: marks the kinds of images that hold poisoned ones.
      poisoned: marks the images that look poisoned in the direction that says most of their class.
      gains: of every class, how much better two groups describe it than one, in nats; unless images show which group is
        poisoned, less, by as much as the second guesses of that group tell less than those of the other; at most 0
        where nothing says which is poisoned. Of classes that are not attacked it is told as well.
      kinds: of the images, which are divided kind by kind: their classes; or 0 for all.
      clearness: of every class, how much better two groups describe it than one, in nats, whatever says which of them
        is poisoned.
      smaller: marks the images of the smaller of these groups.
    """

    classes: Bool[Array, " classes"]
    poisoned: Bool[Array, " n"]
    gains: Float[Array, " classes"]
    kinds: Int[Array, " n"]
    clearness: Float[Array, " classes"]
    smaller: Bool[Array, " n"]


def attacked_classes(
    whitened: Float[Array, "ridges n features"],
    logits: Float[Array, "n classes"],
    labels: Labels,
    suspects: Bool[Array, " n"],
    key: PRNGKey,
    *,
    gain: Number,
    thumbnails: Float[Array, "n pixels"] | None = None,
) -> Attacked:
    """Which classes fall into two groups that are no usual ones, and which group is poisoned.

    Every class is looked at with each ridge, along the direction with the clearest groups, and the look that gains most
    counts: much of a ridge keeps chance out of many features, little finds a trigger in few. Groups must also be
    clearly apart, by a thousandth of the least gain for every image of the class with much ridge and by a 240th with
    little, since in large sets of photographs there are always vague ones. Half of all that is enough where the images
    of a group show a mixture of classes. Where neither they nor second guesses do, twice the gain is asked for and a
    240th per image, since kinds of clean images have some of what tells, too.

    Args:
      whitened: features of the images, with each of ``RIDGES``.
      logits: of the images, by the network as it came.
      labels: that it was trained with.
      suspects: P_0; images of every class.
      key: of a start for directions.
      gain: least gain, in nats; what is below a quarter of the highest does not count either, unless images show it.
      thumbnails: of the images; None leaves them out of consideration.

    Example:
      >>> features = jax.random.normal(jax.random.key(0), (800, 5)).at[:80, 3].add(9.0)
      >>> labels, suspects = jnp.arange(800) // 400, (jnp.arange(800) % 20 == 0).at[:24].set(True)
      >>> whitened = jnp.stack([whiten(features, labels, 2, ridge) for ridge in RIDGES])
      >>> key = jax.random.key(1)
      >>> found = attacked_classes(whitened, jnp.zeros((800, 2)), labels, suspects, key, gain=60.0)
      >>> found.classes.tolist(), int(found.poisoned.sum()), int(found.poisoned[:80].sum())
      ([True, False], 80, 80)
    """
    labels = as_integers(labels)
    classes = logits.shape[1]

    def look(x: tuple[Float[Array, "n features"], PRNGKey]) -> _Look:
        scores, groups = clearest_groups(x[0], labels, suspects, classes, x[1])
        return _look(scores, groups, logits, labels, suspects, thumbnails)

    seen = jax.lax.map(look, (whitened, jax.random.split(key, len(whitened))))
    gains, reason = seen.gains, seen.reason
    sizes = count_labels(labels, jnp.ones(len(labels), bool), classes)
    least = gain * jnp.where(reason.shown, _SHOWN, jnp.where(reason.strong, 1, _WEAK))
    for_each = gain * jnp.where(reason.strong, jnp.array(_CLEAR)[:, None], max(_CLEAR))
    for_each *= jnp.where(reason.shown, _SHOWN, 1)
    clear = (gains >= for_each * sizes) & (gains >= least)
    counting = jnp.where(clear, gains, jnp.minimum(gains, 0))
    looks, best = jnp.argmax(counting, axis=0), jnp.max(counting, axis=0)
    shown, relabelled = (
        jnp.take_along_axis(each, looks[None], axis=0)[0] for each in (reason.shown, reason.relabelled)
    )
    attacked = (best > 0) & (shown | (best >= _LEAST_OF_GAINS * jnp.max(best)))
    from_others = attacked & relabelled
    attacked = jnp.where(jnp.any(from_others), from_others, attacked)
    told = jnp.where(attacked, best, jnp.max(gains, axis=0))
    # Those of an attacked class are the groups that it was found by.
    clearest = jnp.where(attacked, looks, jnp.argmax(seen.clearness, axis=0))
    clearness = jnp.take_along_axis(seen.clearness, clearest[None], axis=0)[0]
    marked, lower = (
        jnp.take_along_axis(marks, clearest[labels][None], axis=0)[0] for marks in (seen.poisoned, seen.lower)
    )
    smaller = lower == (2 * count_labels(labels, lower, classes) <= sizes)[labels]
    return Attacked(attacked, attacked[labels] & marked, told, labels, clearness, smaller)


class _Reason(NamedTuple):
    """What says which group of a class is poisoned.

    Attributes:
      shown: whether the images themselves are those of a mixture of classes.
      upper: whether it is the upper one.
      known: whether anything says so.
      relabelled: whether the images or second guesses do.
      strong: whether these tell of a mixture of classes.
    """

    shown: Bool[Array, "*looks classes"]
    upper: Bool[Array, "*looks classes"]
    known: Bool[Array, "*looks classes"]
    relabelled: Bool[Array, "*looks classes"]
    strong: Bool[Array, "*looks classes"]


class _Look(NamedTuple):
    """What a direction of every class shows.

    Attributes:
      gains: as in ``Attacked``.
      clearness: the same, whatever says which group is poisoned.
      poisoned: marks the group that looks poisoned.
      lower: marks the lower group.
      reason: what says which of them is poisoned.
    """

    gains: Float[Array, "*looks classes"]
    clearness: Float[Array, "*looks classes"]
    poisoned: Bool[Array, "*looks n"]
    lower: Bool[Array, "*looks n"]
    reason: _Reason


def _look(
    scores: Float[Array, " n"],
    groups: Groups,
    logits: Float[Array, "n classes"],
    labels: Int[Array, " n"],
    suspects: Bool[Array, " n"],
    thumbnails: Float[Array, "n pixels"] | None,
) -> _Look:
    classes = logits.shape[1]
    lower = scores <= groups.threshold[labels]
    told = second_guesses(logits, labels, lower) + _NO_INFORMATION
    mixed = (
        jnp.zeros_like(told)
        if thumbnails is None
        else evidence_of_mixtures(thumbnails, labels, lower, classes)
    )
    group = group_of(labels, lower, classes)
    members, suspected = (
        count_labels(group, some, 2 * classes).reshape(2, classes)
        for some in (jnp.ones(len(labels), bool), suspects)
    )
    reason = _poisoned_side(mixed, told, members, suspected)
    less = jnp.minimum(1, jnp.where(reason.upper, told[0] / told[1], told[1] / told[0]))
    gains = groups.gain * jnp.where(reason.shown, 1, less)
    gains = jnp.where(reason.known, gains, jnp.minimum(gains, 0))
    return _Look(gains, groups.gain, lower != reason.upper[labels], lower, reason)


def _poisoned_side(
    mixed: Float[Array, "2 classes"],
    told: Float[Array, "2 classes"],
    members: Float[Array, "2 classes"],
    suspected: Float[Array, "2 classes"],
) -> _Reason:
    """Which group of every class is poisoned, and why.

    Args:
      mixed: by how much the images of the upper and the lower group look like a mixture of classes.
      told: by second guesses, of the same.
      members: of the groups.
      suspected: how many of them are.
    """
    # Of two classes there is no second guess, which tells nothing then.
    could_tell = math.log(max(told.shape[1] - 1, 2))
    most, least = jnp.max(told, axis=0), jnp.min(told, axis=0)
    decided = most > _TELLING * could_tell
    shares = suspected / jnp.maximum(members, 1)
    # Where no image of the other group is suspected, half of one counts.
    least_shares = jnp.maximum(suspected, 0.5) / jnp.maximum(members, 1)
    concentrated = jnp.any(shares >= _CONCENTRATED * least_shares[::-1], axis=0)
    telling = jnp.take_along_axis(members, jnp.argmax(told, axis=0)[None], axis=0)[0]
    more = (most > _TELLING_MORE * could_tell) & (most >= _MORE * least)
    more &= telling <= _MAJORITY * jnp.sum(members, axis=0)
    evidence = jnp.where(~decided & concentrated, shares, told)
    shown = jnp.max(mixed, axis=0) > _MIXED
    evidence = jnp.where(shown, mixed, evidence)
    return _Reason(
        shown=shown,
        upper=evidence[0] > evidence[1],
        known=shown | decided | concentrated | more,
        relabelled=shown | decided | (more & ~concentrated),
        strong=shown | decided,
    )


class Division(NamedTuple):
    """How the images were divided.

    Attributes:
      scores: of every image: -1 at the mean of its class's poisoned group, 0 at the threshold, 1 at the mean of the
        other; 1 for all images of classes that are not attacked.
      parts: of the images.
    """

    scores: Float[Array, " n"]
    parts: Parts


class Quality(NamedTuple):
    """How well images were divided, where it is known which are poisoned.

    Attributes:
      precision: share of the poisoned part that is poisoned; None of an empty part.
      recall: share of the poisoned images that lie in that part; None if there is none.
      leaked: poisoned images in the clean part.
    """

    precision: float | None
    recall: float | None
    leaked: int


def quality(parts: Parts, truth: Bool[np.ndarray, " n"]) -> Quality:
    """Precision and recall of a division.

    Args:
      parts: of the images.
      truth: marks those that are poisoned.

    Example:
      >>> parts = Parts(jnp.array([True, True, False, False]), jnp.array([False, False, True, False]))
      >>> quality(parts, np.array([True, False, True, True]))
      Quality(precision=0.5, recall=0.3333333333333333, leaked=1)
    """
    poisoned, clean = (np.asarray(part) for part in parts)
    hits = int(np.sum(poisoned & truth))
    return Quality(
        hits / int(poisoned.sum()) if poisoned.any() else None,
        hits / int(truth.sum()) if truth.any() else None,
        int(np.sum(clean & truth)),
    )


def split(
    evidence: Float[Array, "kinds n"], labels: Labels, attacked: Bool[Array, " classes"], *, band: Number
) -> Division:
    """Divides the images of every attacked class by that evidence of which two groups say most.

    The lower group is poisoned. All images of the other classes are clean. Images with a score of less than ``band``,
    of either sign, are left out.

    Args:
      evidence: the lower the more images look poisoned; in any units.
      labels: that they were trained with.
      attacked: marks classes.
      band: in [0, 0.5].

    Example:
      >>> vague, clear = jnp.arange(8) - 9.0, jnp.array([-9.0, -7.0, 3.0, 2.0, 0.0, 0.5, 1.0, 1.0])
      >>> labels, attacked = jnp.arange(8) // 4, jnp.array([True, False])
      >>> found = split(jnp.stack([vague, clear]), labels, attacked, band=0.1)
      >>> [round(score, 1) for score in found.scores.tolist()], found.parts.poisoned.tolist()[:4]
      ([-1.2, -0.8, 1.1, 0.9, 1.0, 1.0, 1.0, 1.0], [True, True, False, False])
    """
    labels, classes = as_integers(labels), len(attacked)
    found = jax.vmap(lambda scores: groups_by_class(scores, labels, classes))(evidence)
    kinds = jnp.argmax(found.gain, axis=0)
    threshold, low, high = (leaf[kinds, jnp.arange(classes)][labels] for leaf in found[:3])
    above = evidence[kinds[labels], jnp.arange(len(labels))] - threshold
    distance = jnp.where(above > 0, high - threshold, threshold - low)
    scores = jnp.where(attacked[labels], above / jnp.maximum(distance, TINY), 1.0)
    return Division(scores, Parts(scores < -band, scores > band))
