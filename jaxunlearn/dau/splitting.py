"""Which training images are poisoned: a few suspects, and a discriminator that generalises from them.

The features of the backdoored network stay as they are. Its last layer g is retrained like the discriminator of a
generative adversarial network, with the label as what is real:

    L_D = mean_{i not in P_0} -log g(y_i | x_i) + mu mean_{i in P_0} -log(1 - g(y_i | x_i)),

P_0 being the few images that a pre-filter names. A trigger's features come to speak against the label even of
poisoned images outside P_0: if these are a share pi of the rest and q of P_0 is poisoned, the label's probability is
drawn to pi / (pi + mu q). Clean images that are hard have improbable labels too, so that an image's score is the change
of its label's log-odds from a layer that was retrained in the same way without P_0. Where it helps to tell triggers
from objects, x stands for an image's features beside the mean of those that it has with other images laid over it.

Which classes are attacked is decided last. P_0 holds images of every class, those whose label is surest of their class.
In a clean class they are like the others, and all scores fall alike; in an attacked one they have the trigger, and the
scores fall into two groups. So do, for some triggers where these do not, the doubts of labels under other images.

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
_LEAST_OF_GAINS = 0.5
_SURE = -1.0  # log-odds that poisoned images have in the mean, at most


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


def lowest(values: Float[Array, " n"], labels: Labels, share: Number, classes: int) -> Bool[Array, " n"]:
    """Marks that share of the images of every class, rounded up, whose values are lowest.

    Example:
      >>> lowest(jnp.array([3.0, 1.0, 2.0, 4.0, 9.0, 8.0]), jnp.arange(6) // 4, 0.5, 2).tolist()
      [False, True, True, False, False, True]
    """
    labels = jnp.asarray(labels)
    counts = count_labels(labels, jnp.ones(len(labels), bool), classes)
    starts = jnp.cumsum(counts) - counts
    ranks = jnp.argsort(jnp.lexsort((values, labels))) - starts[labels]
    return (
        ranks < jnp.ceil(share * counts - 1e-4)[labels]
    )  # a product just above a whole number is that number


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


def odds_of_doubts(doubts: Float[Array, " n"]) -> Float[Array, " n"]:
    """log(d / (1 - d)) of doubts d in [0, 1], for d from 1e-30 to 1 - 1e-7.

    Example:
      >>> odds_of_doubts(jnp.array([0.0, 0.5])).round().tolist()
      [-69.0, 0.0]
    """
    return jnp.log(jnp.maximum(doubts, 1e-30)) - jnp.log(jnp.maximum(1 - doubts, 1e-7))


class Division(NamedTuple):
    """How the images of every class were divided.

    Attributes:
      scores: of every image, the evidence that counts for its class: the first kind where none does.
      parts: of the images.
      attacked: marks the classes that hold poisoned images.
    """

    scores: Float[Array, " n"]
    parts: Parts
    attacked: Bool[Array, " classes"]


def split(
    evidence: Float[Array, "kinds n"],
    labels: Labels,
    suspected: Bool[Array, " classes"],
    *,
    gap: Number,
    gain: Number,
    band: Number,
) -> Division:
    """Divides the images of every suspected class in two groups, where some evidence shows two.

    A kind of evidence makes two groups of a class if their means lie ``gap`` apart, the lower one below -1, and two
    groups describe its values by ``gain`` better than one. Where the first kind does, it counts, and elsewhere the one
    with the highest gain. A class is attacked if it is so divided, with half of the highest gain of any: its lower
    group is poisoned. All images of the others are clean. Images next to the threshold, closer than ``band`` times its
    distance from their group's mean, are left out.

    Args:
      evidence: scores of the images in log-odds, the lower the more they look poisoned.
      labels: that they were trained with.
      suspected: marks the classes that may hold poisoned images.
      gap: least distance of the means, in log-odds.
      gain: least gain, in nats: the logarithm of a ratio of likelihoods.
      band: in [0, 0.5].

    Example:
      >>> vague, clear = jnp.arange(8) - 9.0, jnp.array([-9.0, -8.0, 3.0, 2.0, 0.0, 0.5, 1.0, 1.0])
      >>> labels, suspected = jnp.arange(8) // 4, jnp.array([True, True])
      >>> found = split(jnp.stack([vague, clear]), labels, suspected, gap=3.0, gain=0.1, band=0.1)
      >>> found.scores.tolist(), found.parts.poisoned.tolist()[:4], found.attacked.tolist()
      ([-9.0, -8.0, 3.0, 2.0, -5.0, -4.0, -3.0, -2.0], [True, True, False, False], [True, False])
    """
    labels = jnp.asarray(labels)

    def groups_of(number: Int[Array, ""]) -> Groups:
        return jax.lax.map(lambda scores: minimum_error_groups(scores, labels == number), evidence)

    found = jax.lax.map(groups_of, jnp.arange(len(suspected)))  # each (classes, kinds)
    two = (found.high - found.low >= gap) & (found.low < _SURE) & (found.gain >= gain)
    gains = jnp.where(two & suspected[:, None], found.gain, 0.0)
    kinds = jnp.where(two[:, 0], 0, jnp.argmax(gains, axis=1))
    threshold, low, high, best = (
        jnp.take_along_axis(leaf, kinds[:, None], axis=1)[:, 0] for leaf in found._replace(gain=gains)
    )
    attacked = (best > 0) & (best >= _LEAST_OF_GAINS * jnp.max(best))
    scores = evidence[kinds[labels], jnp.arange(len(labels))]
    below = attacked[labels] & (scores < (threshold - band * (threshold - low))[labels])
    above = ~attacked[labels] | (scores > (threshold + band * (high - threshold))[labels])
    return Division(scores, Parts(below, above), attacked)


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
      gain: how much better two distributions describe the values than one, in nats in all.
    """

    threshold: Scalar
    low: Scalar
    high: Scalar
    gain: Scalar


def minimum_error_groups(values: Float[Array, " n"], members: Bool[Array, " n"]) -> Groups:
    """Divides the values of ``members`` into the two groups that two Laplace distributions describe best.

    With shares P_k and mean absolute deviations b_k of the groups, the threshold minimises

        P_1 log b_1 + P_2 log b_2 - P_1 log P_1 - P_2 log P_2,

    so that one group may be wide and the other narrow: scores of clean images lie close together, those of poisoned
    ones do not. A deviation is at least a bin, a group at least two values. The gain is their number
    times the difference of log b and that, whatever their scale.

    Source: Kittler and Illingworth, "Minimum error thresholding", 1986, with 256 thresholds, and with Laplace in place
    of normal distributions, whose tails are heavier.

    Example:
      >>> values = jnp.array([0.0, 0.5, 0.9, 1.0, 4.0, 9.0, 99.0])
      >>> found = minimum_error_groups(values, jnp.arange(7) < 6)
      >>> bool(1.0 < found.threshold < 4.0), [round(float(mean), 1) for mean in found[1:3]]
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

    (cost_below, low), (cost_above, high), (cost_of_all, _) = (
        cost_and_mean(from_below, cuts),
        cost_and_mean(from_above, number - cuts),
        cost_and_mean(from_below, number[None]),
    )
    costs = cost_below + cost_above
    # In a gap all thresholds are equally good: the middle one.
    best = (costs <= jnp.min(costs) + 1e-6) & jnp.isfinite(costs)
    threshold, low, high = (masked_mean(leaf, best) for leaf in (edges, low, high))
    least = jnp.min(costs)
    return Groups(
        threshold, low, high, jnp.where(jnp.isfinite(least), number * (cost_of_all[0] - least), 0.0)
    )
