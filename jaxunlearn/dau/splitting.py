"""Which training images are poisoned: those learned first, and a discriminator that generalises from them.

The features of the backdoored network stay as they are. Its last layer g is retrained like the discriminator of a
generative adversarial network, with the label as what is real:

    L_D = mean_{i not in P_0} -log g(y_i | x_i) + mu mean_{i in P_0} -log(1 - g(y_i | x_i)),

P_0 being the few images that a fresh network learned first. A trigger's features come to speak against the label
even of poisoned images outside P_0: if these are a share pi of the rest and q of P_0 is poisoned, the label's
probability is drawn to pi / (pi + mu q). Clean images that are hard have improbable labels too, so that what counts
is the change of the label's log-odds from the network's own last layer to the retrained one: its score.

Source: ours. The abstract of DAU (github.com/MiLab-HITSZ/DAU) says that the extractor is frozen and the classifier
retrained on a small pre-filtered poisoned set as a discriminator; the loss, the thresholds and all numbers are not
published. The pre-filter is that of Li et al., "Anti-backdoor learning", NeurIPS 2021.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jaxunlearn import _loop
from jaxunlearn._optimizers import momentum_step
from jaxunlearn._typing import Labels, Number, PRNGKey, Scalar
from jaxunlearn.losses import complementary_cross_entropy, masked_mean

_BINS = 256


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
    rounds: int,
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
      rounds: passes over the images.
      batch_size: others in a step.
      suspect_batch_size: suspects in a step.
      rate: learning rate, for features of unit root mean square norm, which they are scaled to.
      momentum: share of the velocity that stays.
      weight_decay: of the layer, so scaled.
      suspect_weight: mu.

    Returns:
      s, the probability of every image's label, in [0, 1].

    Example:
      >>> features = jnp.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 0, 1]]).repeat(4, axis=0)
      >>> labels, suspects = jnp.array([0, 1, 1, 1]).repeat(4), jnp.arange(16) == 8
      >>> sizes = dict(rounds=50, batch_size=8, suspect_batch_size=4)
      >>> settings = dict(rate=0.5, momentum=0.9, weight_decay=0.0, suspect_weight=9.0)
      >>> start = Head(jnp.zeros((3, 2)), jnp.zeros(2))
      >>> s = discriminate(features, labels, suspects, start, jax.random.key(0), **sizes, **settings)
      >>> (s > 0.5)[::4].tolist()
      [True, True, False, False]
    """
    steps = rounds * -(-len(labels) // batch_size)
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
    return label_probabilities(trained(scaled), labels)


def label_probabilities(logits: Float[Array, "n classes"], labels: Labels) -> Float[Array, " n"]:
    """The probability that an answer gives to each image's label."""
    return jnp.take_along_axis(jax.nn.softmax(logits), jnp.asarray(labels)[:, None], axis=1)[:, 0]


def split(scores: Float[Array, " n"], *, low: Number, high: Number, thresholds: str) -> Parts:
    """Divides images by their scores, the change of the label's log-odds.

    Poisoned: score < low; clean: score > high. With ``otsu``, both are moved so that their middle is the gap.

    Example:
      >>> split(jnp.array([-5.0, -1.5, 0.1]), low=-2.0, high=-1.0, thresholds="fixed").clean.tolist()
      [False, False, True]
    """
    moved = otsu(scores) - (low + high) / 2 if thresholds == "otsu" else 0.0
    return Parts(scores < low + moved, scores > high + moved)


def log_odds_change(before: Float[Array, " n"], after: Float[Array, " n"]) -> Float[Array, " n"]:
    """How much more a label is believed after than before: log(b / (1 - b)) - log(a / (1 - a)).

    Args:
      before: a, probabilities; taken to be at least 1e-6 away from 0 and 1.
      after: b, likewise.

    Example:
      >>> log_odds_change(jnp.array([0.5]), jnp.array([0.1])).round(2).tolist()
      [-2.200000047683716]
    """
    return _log_odds(after) - _log_odds(before)


def otsu(values: Float[Array, " n"]) -> Scalar:
    """The threshold that divides values into two groups with the least variance inside them.

    Source: Otsu, "A threshold selection method from gray-level histograms", 1979, with 256 thresholds.

    Example:
      >>> bool(1.0 < otsu(jnp.array([0.0, 0.5, 1.0, 7.0, 8.0])) < 7.0)
      True
    """
    edges = jnp.linspace(jnp.min(values), jnp.max(values), _BINS + 2)[1:-1]

    def between(edge: jax.Array) -> Scalar:
        """The variance between the groups, up to a factor."""
        above = values > edge
        share = jnp.mean(above)
        apart = masked_mean(values, above) - masked_mean(values, ~above)
        return share * (1 - share) * apart**2

    variances = jax.lax.map(between, edges)
    # In a wide gap all thresholds are equally good: the middle one.
    best = variances >= jnp.max(variances) * (1 - 1e-6)
    return masked_mean(edges, best)


def _log_odds(probability: Number) -> jax.Array:
    bounded = jnp.clip(jnp.asarray(probability), 1e-6, 1 - 1e-6)
    return jnp.log(bounded) - jnp.log1p(-bounded)
