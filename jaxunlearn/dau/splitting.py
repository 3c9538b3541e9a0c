"""Which training images are poisoned: a few suspects, and a discriminator that generalises from them.

The features of the backdoored network stay as they are. Its last layer g is retrained like the discriminator of a
generative adversarial network, with the label as what is real:

    L_D = mean_{i not in P_0} -log g(y_i | x_i) + mu mean_{i in P_0} -log(1 - g(y_i | x_i)),

P_0 being the few images that a pre-filter names. A trigger's features come to speak against the label even of
poisoned images outside P_0: if these are a share pi of the rest and q of P_0 is poisoned, the label's probability is
drawn to pi / (pi + mu q). Clean images that are hard have improbable labels too, so that an image's score is the change
of its label's log-odds from a layer that was retrained in the same way without P_0; and all images of the attack's
class are doubted more than others, so that each class is divided for itself, and only those that hold more of P_0 than
chance. Where it helps to tell triggers from objects, x stands for an image's features beside the mean of those that it
has with other images laid over it.

Source: ours. The abstract of DAU (github.com/MiLab-HITSZ/DAU) says that the extractor is frozen and the classifier
retrained on a small pre-filtered poisoned set as a discriminator; the loss, the thresholds and all numbers are not
published. Isolation, one way to name P_0, is that of Li et al., "Anti-backdoor learning", NeurIPS 2021.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxunlearn import _loop
from jaxunlearn._optimizers import momentum_step
from jaxunlearn._typing import Labels, Number, PRNGKey, Scalar
from jaxunlearn.losses import complementary_cross_entropy, masked_mean

_BINS = 256
_LEAST_OF_GAPS = 0.5


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

    Source: Li et al., 2021; Ishida et al., "Do we need zero training loss after achieving zero training error?", 2020.

    Example:
      >>> [float(isolation_loss(jnp.asarray(0.25), kind, 0.5)) for kind in ("lga", "flooding", "early")]
      [-0.25, 0.75, 0.25]
    """
    loss = jnp.asarray(loss)
    if kind == "lga":
        return jax.lax.stop_gradient(jnp.sign(loss - level)) * loss
    return jnp.abs(loss - level) + level if kind == "flooding" else loss


def lowest(values: Float[Array, " n"], share: Number) -> Bool[Array, " n"]:
    """Marks that share of the values, at least one, that is lowest.

    Example:
      >>> lowest(jnp.array([3.0, 1.0, 2.0, 4.0]), 0.5).tolist()
      [False, True, True, False]
    """
    ranks = jnp.argsort(jnp.argsort(values))
    return ranks < jnp.maximum(jnp.round(share * len(values)), 1)


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
    labels = jnp.asarray(labels)
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
    """1 - p of the probability p that an answer gives to each image's label; exact where p rounds to one.

    Example:
      >>> [f"{doubt:.1e}" for doubt in label_doubts(jnp.array([[40.0, 0.0], [0.0, 0.0]]), jnp.array([0, 0]))]
      ['4.2e-18', '5.0e-01']
    """
    return jnp.exp(-complementary_cross_entropy(logits, labels))


def label_log_odds(logits: Float[Array, "n classes"], labels: Labels) -> Float[Array, " n"]:
    """log(p / (1 - p)) of the probability p that an answer gives to each image's label; exact where p rounds to one.

    Example:
      >>> label_log_odds(jnp.array([[99.0, 0.0]]), jnp.array([0])).tolist()
      [99.0]
    """
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return complementary_cross_entropy(logits, labels) - cross_entropy


def split(
    scores: Float[Array, " n"],
    labels: Labels,
    suspected: Bool[Array, " classes"],
    *,
    gap: Number,
    band: Number,
) -> Parts:
    """Divides the images of every suspected label in two groups by their scores, where they are in two.

    In a class whose groups lie ``gap`` apart (their means), and half as far as those of any class, the lower one
    is poisoned; elsewhere all are clean, as where the suspects were clean images that are hard to recognise. Images
    next to the threshold, closer than ``band`` times its distance from their group's mean, are left out.

    Args:
      scores: of the images, the lower the less their label is believed.
      labels: that they were trained with.
      suspected: marks the classes that may hold poisoned images.
      gap: least distance of the means, in the scores' unit.
      band: in [0, 0.5].

    Example:
      >>> scores, labels = jnp.array([-9.0, -8.0, -3.0, -2.0, 0.0, 0.5, 1.0, 1.0]), jnp.arange(8) // 4
      >>> split(scores, labels, jnp.array([True, True]), gap=3.0, band=0.1).poisoned.tolist()
      [True, True, False, False, False, False, False, False]
    """
    labels = jnp.asarray(labels)
    numbers = jnp.arange(len(suspected))
    threshold, low, high = jax.lax.map(lambda number: minimum_error_groups(scores, labels == number), numbers)
    apart = jnp.where(suspected, high - low, 0.0)
    divided = (apart > 0) & (apart >= jnp.maximum(gap, _LEAST_OF_GAPS * jnp.max(apart)))
    below = divided & (scores[:, None] < threshold - band * (threshold - low))
    above = ~divided | (scores[:, None] > threshold + band * (high - threshold))
    rows = jnp.arange(len(labels))
    return Parts(below[rows, labels], above[rows, labels])


def suspected_classes(suspects: Bool[Array, " n"], labels: Labels, classes: int) -> Bool[Array, " classes"]:
    """Marks the classes that hold more suspects than chance, or those with many where no class does.

    More than chance is more than e + 3 sqrt(e) of them, e being the class's share of all images times the number of
    suspects: three standard deviations of a Poisson count. Of these, classes with less than half as many as the first
    are taken for objects that look like nothing else. An attack that forces every class leaves no such class; then
    those with at least e / 2 are marked.

    Example:
      >>> labels = jnp.arange(30) % 3
      >>> suspected_classes(labels == 1, labels, 3).tolist(), suspected_classes(labels < 2, labels, 3).tolist()
      ([False, True, False], [True, True, False])
    """
    counts = count_labels(labels, suspects, classes)
    even = jnp.sum(counts) * count_labels(labels, jnp.ones_like(suspects), classes) / len(suspects)
    outlying = (counts > even + 3 * jnp.sqrt(even)) & (counts >= jnp.max(counts) / 2)
    return jnp.where(jnp.any(outlying), outlying, counts >= jnp.maximum(even / 2, 1))


def count_labels(labels: Labels, members: Bool[Array, " n"], classes: int) -> Float[Array, " classes"]:
    """How many of the images that ``members`` marks have each label.

    Example:
      >>> count_labels(jnp.array([1, 1, 0]), jnp.array([True, False, True]), 3).tolist()
      [1.0, 1.0, 0.0]
    """
    return jnp.sum(jax.nn.one_hot(labels, classes) * members[:, None], axis=0)


class Groups(NamedTuple):
    """Two groups of values.

    Attributes:
      threshold: values up to it are in the lower one.
      low: mean of the lower one.
      high: mean of the upper one; equal to ``low`` where there are no two groups.
    """

    threshold: Scalar
    low: Scalar
    high: Scalar


def minimum_error_groups(values: Float[Array, " n"], members: Bool[Array, " n"]) -> Groups:
    """Divides the values of ``members`` into the two groups that two Laplace distributions describe best.

    With shares P_k and mean absolute deviations b_k of the groups, the threshold minimises

        P_1 log b_1 + P_2 log b_2 - P_1 log P_1 - P_2 log P_2,

    so that one group may be wide and the other narrow: scores of clean images lie close together, those of poisoned
    ones do not. A deviation is at least a bin, a group at least two values.

    Source: Kittler and Illingworth, "Minimum error thresholding", 1986, with 256 thresholds, and with Laplace in place
    of normal distributions, whose tails are heavier.

    Example:
      >>> values = jnp.array([0.0, 0.5, 0.9, 1.0, 4.0, 9.0, 99.0])
      >>> found = minimum_error_groups(values, jnp.arange(7) < 6)
      >>> bool(1.0 < found.threshold < 4.0), [round(float(mean), 1) for mean in found[1:]]
      (True, [0.6, 6.5])
    """
    number = jnp.sum(members)
    ascending = jnp.sort(jnp.where(members, values, jnp.inf))
    descending = jnp.sort(jnp.where(members, values, -jnp.inf))[::-1]
    ends = ascending[0], descending[0]
    low, high = (
        jnp.where(ends[0] < ends[1], end, other) for end, other in zip(ends, (0.0, 1.0), strict=True)
    )
    bin_width = (high - low) / (_BINS + 1)
    edges = low + bin_width * jnp.arange(1, _BINS + 1)
    cuts = jnp.searchsorted(ascending, edges, side="right")
    # A group's sums start at its far end, so that they round like its own values.
    from_below, from_above = (
        jnp.pad(jnp.cumsum(jnp.where(jnp.isfinite(part), part, 0)), (1, 0))
        for part in (ascending, descending)
    )

    def cost_and_mean(
        sums: Float[Array, " places"], counts: Int[Array, " cuts"]
    ) -> tuple[jax.Array, jax.Array]:
        """A group's part of the cost, infinite where it is too small, and its mean; one for every threshold."""
        halves = sums[counts] - sums[(counts + 1) // 2] - sums[counts // 2]
        spread = jnp.maximum(jnp.abs(halves) / jnp.maximum(counts, 1), bin_width)
        share = jnp.maximum(counts, 1) / jnp.maximum(number, 1)
        cost = jnp.where(counts > 1, share * (jnp.log(spread) - jnp.log(share)), jnp.inf)
        return cost, sums[counts] / jnp.maximum(counts, 1)

    (cost_below, low), (cost_above, high) = (
        cost_and_mean(from_below, cuts),
        cost_and_mean(from_above, number - cuts),
    )
    costs = cost_below + cost_above
    # In a gap all thresholds are equally good: the middle one.
    best = (costs <= jnp.min(costs) + 1e-6) & jnp.isfinite(costs)
    return Groups(*(masked_mean(leaf, best) for leaf in (edges, low, high)))
