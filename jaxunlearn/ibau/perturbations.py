"""The inner problem of I-BAU: perturbations that many images share.

The published method has one perturbation, which leads images away from the model's own answer. Here
there may be several, each image carrying one of them: one towards every class, and one away. Towards a
backdoor's class a much smaller perturbation does than towards any other, which tells the backdoor from
the universal perturbations that every network has; one perturbation alone may find either.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from jaxunlearn._loop import Batch
from jaxunlearn._typing import ApplyFn, Images, Labels, Number, PRNGKey, Scalar, Variables
from jaxunlearn.ibau.config import Config
from jaxunlearn.losses import masked_mean

Perturbations = Float[Array, "kinds h w c"]
Kinds = Int[Array, " n"]
"""The perturbation that every image carries: a class, or the last one, which leads away."""

_START = 0.002  # root mean square over pixels at which a growing ball starts, half a grey level
_GROWTH = 1.1  # per step
_MEMORY = 0.9  # weight of earlier images in a running share of hits, per image
_UNSUSPECTED = 0.1  # share of the images that go on trying every class once some are suspected


class Ascent(NamedTuple):
    """Perturbations on their way up.

    Attributes:
      delta: the perturbations.
      optimizer: state of their optimizer.
      radius: of the l2 ball that holds each of them.
      hits: of every kind, running count of images that it led where it should.
      tries: running count of images that carried it.
    """

    delta: Perturbations
    optimizer: PyTree
    radius: Scalar
    hits: Float[Array, " kinds"]
    tries: Float[Array, " kinds"]

    @property
    def success(self) -> Float[Array, " kinds"]:
        """The share of hits, counting a few failures more than were seen."""
        return self.hits / jnp.maximum(self.tries, 3)


def kinds_of(config: Config, classes: int) -> int:
    """The number of perturbations: one for every class where asked for, and one that leads away."""
    return classes + 1 if config.perturbations == "classes" else 1


def start(config: Config, shape: tuple[int, ...], dtype: DTypeLike) -> Ascent:
    """Zero perturbations of shape (kinds, h, w, c)."""
    delta = jnp.zeros(shape, dtype)
    counts = jnp.zeros(shape[0], dtype)
    pixels = delta[0].size
    radius = jnp.asarray(_START * pixels**0.5 if config.ascent == "growing" else config.radius, dtype)
    return Ascent(delta, _optimizer(config).init(delta), radius, counts, counts)


def inner_loss(
    apply_fn: ApplyFn, variables: Variables, delta: Perturbations, batch: Batch, kinds: Kinds, config: Config
) -> tuple[Scalar, Float[Array, "n classes"]]:
    """L_in and the logits of the perturbed images.

    L_in = mean_i l_i + lambda sum_k ||delta_k||_2^2 with the loss of image i, which carries delta_k,

        l_i = -CE(f(x_i + delta_k), y_i)                      where k leads away,
        l_i = max_{j != k} f_j(x_i + delta_k) - f_k(x_i + delta_k)   where k leads to class k.

    Both fall without bound, so that a perturbation that already works still improves.

    Args:
      apply_fn: the network.
      variables: of the network.
      delta: the perturbations.
      batch: images with the labels that the last kind leads away from.
      kinds: the perturbation that each image carries.
      config: lambda, and whether to clip pixels.

    Returns:
      L_in, and the logits of the perturbed images.

    Example:
      >>> from jaxunlearn.ibau import Config
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)), {})
      >>> batch = Batch(jnp.zeros((1, 4, 4, 2)), jnp.array([0]), jnp.ones(1, bool))
      >>> loss, logits = inner_loss(apply_fn, {}, jnp.ones((1, 4, 4, 2)), batch, jnp.array([0]), Config(penalty=0.5))
      >>> float(loss)  # -log 2 for two equal logits, and half of 32 squared pixels
      15.3068...
    """
    logits, _ = apply_fn(variables, clipped(batch.images + carried(delta, kinds), config), train=False)
    away = -optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
    classes = logits.shape[1]
    towards = jax.nn.one_hot(kinds, classes, dtype=bool)  # all false for the last kind
    rival = jnp.max(jnp.where(towards, -jnp.inf, logits), axis=1)
    margin = rival - jnp.sum(jnp.where(towards, logits, 0), axis=1)
    losses = away if len(delta) == 1 else jnp.where(kinds == classes, away, margin)
    return masked_mean(losses, batch.mask) + config.penalty * jnp.sum(delta**2), logits


def ascent_step(
    apply_fn: ApplyFn,
    variables: Variables,
    ascent: Ascent,
    batch: Batch,
    suspicion: Float[Array, " kinds"],
    limit: Number,
    key: PRNGKey,
    config: Config,
) -> tuple[Ascent, Scalar]:
    """One step of the perturbations down L_in, with the network's own answers as labels.

    A growing ball keeps its radius from the step on in which the share ``config.enough`` of the images
    went where the best perturbation led them: the perturbations stay as small as that allows.

    Args:
      apply_fn: the network.
      variables: of the network.
      ascent: the perturbations so far.
      batch: clean images; their labels are not used.
      suspicion: how often images carry each kind.
      limit: the largest radius.
      key: of the choice of kinds.
      config: step sizes.

    Returns:
      The new perturbations, and L_in before the step.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)), {})
      >>> batch = Batch(jnp.full((3, 4, 4, 2), 0.5), jnp.zeros(3, int), jnp.ones(3, bool))
      >>> config = Config()
      >>> ascent = start(config, (1, 4, 4, 2), jnp.float32)
      >>> ascent, _ = ascent_step(apply_fn, {}, ascent, batch, jnp.ones(1), jnp.inf, jax.random.key(0), config)
      >>> jnp.sign(ascent.delta[0, 0, 0]).tolist()  # away from the model's answer, class 0
      [-1.0, 1.0]
    """
    answers = jnp.argmax(apply_fn(variables, batch.images, train=False)[0], axis=1)
    kinds = draw_kinds(key, suspicion, answers)

    def loss_fn(delta: Perturbations) -> tuple[Scalar, jax.Array]:
        return inner_loss(apply_fn, variables, delta, batch._replace(labels=answers), kinds, config)

    (loss, logits), gradient = jax.value_and_grad(loss_fn, has_aux=True)(ascent.delta)
    reached = jnp.argmax(logits, axis=1)
    hit = jnp.where(kinds == len(ascent.delta) - 1, reached != answers, reached == kinds) & batch.mask
    members = jax.nn.one_hot(kinds, len(ascent.delta), dtype=gradient.dtype) * batch.mask[:, None]
    new = jnp.sum(members, axis=0)
    kept = _MEMORY**new
    hits, tries = ascent.hits * kept + hit.astype(gradient.dtype) @ members, ascent.tries * kept + new

    steps, optimizer = _optimizer(config).update(gradient, ascent.optimizer)
    radius = ascent.radius
    if config.ascent == "growing":
        working = jnp.max(hits / jnp.maximum(tries, 3)) >= config.enough
        radius = jnp.minimum(jnp.where(working, radius, radius * _GROWTH), limit)
        steps = -config.ascent_rate * radius * _unit(gradient)
    delta = _projected(ascent.delta + steps, radius)
    return Ascent(delta, optimizer, radius, hits, tries), loss


def draw_kinds(key: PRNGKey, weights: Float[Array, " kinds"], answers: Labels) -> Kinds:
    """Draws the kind that each image carries, in proportion to the weights, never towards its own class."""
    if len(weights) == 1:
        return jnp.zeros_like(answers)
    own = jax.nn.one_hot(answers, len(weights), dtype=bool)
    return jax.random.categorical(key, jnp.where(own, -jnp.inf, jnp.log(weights + 1e-9)), axis=1)


def suspect(ascent: Ascent, config: Config) -> Float[Array, " kinds"]:
    """How much each kind is suspected, from its success at the common radius; sums to one.

    success^focus. The kind that leads away succeeds wherever another does, so only its lead counts.
    """
    success = ascent.success
    if len(success) == 1:
        return jnp.ones_like(success)
    lead = jnp.maximum(success[-1] - jnp.max(success[:-1]), 0)
    return jax.nn.softmax(config.focus * jnp.log(success.at[-1].set(lead) + 1e-3))


def trial_shares(suspicion: Float[Array, " kinds"]) -> Float[Array, " kinds"]:
    """How often ascent tries each kind: mostly what is suspected, a little of everything."""
    return suspicion + _UNSUSPECTED / len(suspicion)


def carried(delta: Perturbations, kinds: Kinds) -> Float[Array, "#n h w c"]:
    """The perturbation that every image carries.

    A sum over the kinds: the derivative of an indexing would be a scatter.
    """
    if len(delta) == 1:
        return delta
    return jnp.tensordot(jax.nn.one_hot(kinds, len(delta), dtype=delta.dtype), delta, 1)


def clipped(images: Images, config: Config) -> Images:
    """Pixels as the network sees them."""
    return jnp.clip(images, 0, 1) if config.clip_pixels else images


def _optimizer(config: Config) -> optax.GradientTransformation:
    if config.ascent == "growing":
        return optax.identity()
    direction = {"sgd": optax.identity, "adam": optax.scale_by_adam}[config.ascent]()
    return optax.chain(direction, optax.scale(-1), optax.scale(config.ascent_rate))


def _norms(delta: Perturbations) -> Float[Array, "kinds 1 1 1"]:
    return jnp.sqrt(jnp.sum(delta**2, axis=(1, 2, 3), keepdims=True))


def _unit(delta: Perturbations) -> Perturbations:
    return delta / jnp.maximum(_norms(delta), jnp.finfo(delta.dtype).tiny)


def _projected(delta: Perturbations, radius: Scalar) -> Perturbations:
    """The nearest points of the l2 ball."""
    return delta * jnp.minimum(1, radius / jnp.maximum(_norms(delta), jnp.finfo(delta.dtype).tiny))
