"""The input-aware attack: networks that draw another trigger for every image, trained together with a classifier."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxunlearn._check import DivergedError
from jaxunlearn._optimizers import momentum_step
from jaxunlearn._random import draw_rows
from jaxunlearn._runtime import Compiled
from jaxunlearn._training import forward_of_halves
from jaxunlearn._tree import partition, trainable_mask
from jaxunlearn._typing import ApplyFn, Images, Labels, PRNGKey, Scalar
from jaxunlearn.attacks.crafted import Progress, Surrogate, unseen
from jaxunlearn.losses import mean_cross_entropy
from jaxunlearn.models.drawing import Drawing

_TINY = 1e-6
_SPARSITY = 100.0  # weight of the mask's density against the diversity of masks
_CLASSIFIER_RATE, _MOMENTUM, _DECAY = 0.01, 0.9, 5e-4
_FIRST_MOMENT, _SECOND_MOMENT = 0.5, 0.9  # of Adam, for the two networks


class Drawings(NamedTuple):
    """The trained networks.

    Attributes:
      mask: variables of the one that says where the trigger goes.
      pattern: variables of the one that says what it looks like.
    """

    mask: PyTree
    pattern: PyTree


def draw(drawings: Drawings, images: Images, seen: Images) -> jax.Array:
    """Images with the triggers that were drawn for the images ``seen``; the attack's own where they are the same.

    x + m(s) (p(s) - x), with the mask m and the pattern p in [0, 1].

    Args:
      drawings: the networks.
      images: x, pixels in [0, 1].
      seen: s, as many.

    Example:
      >>> images = jnp.zeros((2, 8, 8, 1))
      >>> networks = fresh(1, jax.random.key(0))
      >>> draw(networks, images, images).shape
      (2, 8, 8, 1)
    """
    images = jnp.asarray(images)
    return images + mask_of(drawings.mask, seen) * (pattern_of(drawings.pattern, seen) - images)


def mask_of(variables: PyTree, images: Images) -> Float[Array, "n h w 1"]:
    """Where the triggers of images go, near 0 or 1: (1 + tanh(10 tanh z)) / 2."""
    return jax.nn.sigmoid(20 * jnp.tanh(_drawn(1, variables, images)))


def pattern_of(variables: PyTree, images: Images) -> Float[Array, "n h w c"]:
    """What the triggers of images look like, in [0, 1]: (1 + tanh z) / 2."""
    return jax.nn.sigmoid(2 * _drawn(images.shape[-1], variables, images))


def _drawn(channels: int, variables: PyTree, images: Images) -> jax.Array:
    return _drawing(channels)(variables, jnp.asarray(images))


@functools.cache
def _drawing(channels: int) -> Compiled:
    return Compiled(Drawing(channels).apply)


def fresh(channels: int, key: PRNGKey) -> Drawings:
    """Untrained networks for images of so many channels."""
    image, (first, second) = jnp.zeros((1, 8, 8, channels)), jax.random.split(key)
    return Drawings(Drawing(1).init(first, image), Drawing(channels).init(second, image))


def diversity_loss(
    images: Images,
    others: Images,
    drawn: Float[Array, "n h w d"],
    drawn_for_others: Float[Array, "n h w d"],
) -> Scalar:
    """How alike the drawings are beside the images: the mean of ||x - x'|| / ||d(x) - d(x')||.

    Norms are root mean squares.

    Example:
      >>> x, y = jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1))
      >>> round(float(diversity_loss(x, y, x, 0.5 * y)), 3)
      2.0
    """

    def distance(a: Float[Array, "n h w _"], b: Float[Array, "n h w _"]) -> jax.Array:
        return jnp.sqrt(jnp.mean((a - b) ** 2, axis=(1, 2, 3)) + _TINY**2)

    given = distance(jnp.asarray(images), jnp.asarray(others))
    return jnp.mean(given / (distance(drawn, drawn_for_others) + _TINY))


def train_drawings(
    surrogate: Surrogate,
    target: int,
    key: PRNGKey,
    *,
    density: float,
    share: float,
    cross_share: float,
    diversity: float,
    mask_steps: int,
    steps: int,
    batch_size: int,
    rate: float,
    progress: Progress = unseen,
) -> Drawings:
    """Trains masks by themselves, and patterns together with a classifier that starts as the clean one.

    Masks descend on 100 mean relu(m(x) - density) + L_div, the mean being over pixels and images; patterns and the
    classifier on the cross-entropy of a batch + diversity L_div, where a share of the batch carries its own triggers
    and the label ``target``, and another one carries those of other images and keeps its labels.

    Args:
      surrogate: the classifier, and the images.
      target: the attack's class.
      key: of everything random.
      density: of the masks; every pixel may be so much of the pattern for nothing.
      share: of a batch with its own triggers.
      cross_share: of a batch with others' triggers.
      diversity: weight of L_div (``diversity_loss``) of the patterns.
      mask_steps: of the masks' training.
      steps: of the patterns'.
      batch_size: images in a step.
      rate: of Adam, for both.
      progress: told the share of all steps that is done.

    Raises:
      DivergedError: if a loss becomes NaN or infinite.

    Source: Nguyen and Tran, "Input-aware dynamic backdoor attack", NeurIPS 2020; smaller networks, group
    normalisation in place of batch normalisation.
    """
    fresh_key, masks_key, patterns_key, dropout_key = jax.random.split(key, 4)
    images, labels = jnp.asarray(surrogate.images), jnp.asarray(surrogate.labels)
    drawings = fresh(images.shape[-1], fresh_key)
    size = min(batch_size, len(labels))
    optimizer = _adam(rate)

    def batches(count: int, key: PRNGKey) -> Iterator[list[Int[np.ndarray, " size"]]]:
        """The rows of each step's images, and of others to go with them."""
        for keys in jax.random.split(key, (count, 2)):
            yield [draw_rows(one, len(labels), size) for one in keys]

    state, loss, step = optimizer.init(drawings.mask), jnp.zeros(()), _mask_step(rate, density)
    for number, (rows, others) in enumerate(batches(mask_steps, masks_key), 1):
        mask, state, loss = step(drawings.mask, state, images[rows], images[others])
        drawings = drawings._replace(mask=mask)
        progress(number / (mask_steps + steps))
    _check_finite(loss, "mask")

    params, rest = partition(surrogate.variables, trainable_mask(surrogate.variables))
    joint = _Joint(
        drawings.pattern, optimizer.init(drawings.pattern), params, rest, optax.tree.zeros_like(params)
    )
    counts = (max(1, round(share * size)), max(1, round(cross_share * size)))
    joint_step = _joint_step(surrogate.apply_fn, rate, target, counts, diversity)
    for number, (rows, others) in enumerate(batches(steps, patterns_key)):
        dropped = jax.random.fold_in(dropout_key, number)
        joint, loss = joint_step(joint, drawings.mask, images[rows], labels[rows], images[others], dropped)
        progress((mask_steps + number + 1) / (mask_steps + steps))
    _check_finite(loss, "pattern")
    return drawings._replace(pattern=joint.pattern)


class _Joint(NamedTuple):
    """Patterns and classifier in training."""

    pattern: PyTree
    state: optax.OptState
    params: PyTree
    rest: PyTree
    velocity: PyTree


def _adam(rate: float) -> optax.GradientTransformation:
    return optax.adam(rate, b1=_FIRST_MOMENT, b2=_SECOND_MOMENT)


@functools.lru_cache(maxsize=16)
def _mask_step(rate: float, density: float) -> Compiled:
    optimizer = _adam(rate)

    def step(mask: PyTree, state: Any, images: jax.Array, others: jax.Array) -> tuple[PyTree, Any, Scalar]:
        def loss_fn(mask: PyTree) -> Scalar:
            own, theirs = mask_of(mask, images), mask_of(mask, others)
            dense = jnp.mean(jax.nn.relu(own - density))
            return _SPARSITY * dense + diversity_loss(images, others, own, theirs)

        loss, gradient = jax.value_and_grad(loss_fn)(mask)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(mask, updates), state, loss

    return Compiled(step)


@functools.lru_cache(maxsize=16)
def _joint_step(
    apply_fn: ApplyFn, rate: float, target: int, counts: tuple[int, int], diversity: float
) -> Compiled:
    """A step on a batch whose first images carry their own triggers, and the next ones those of others."""
    optimizer, (own, cross) = _adam(rate), counts

    def step(
        joint: _Joint, mask: PyTree, images: jax.Array, labels: Labels, others: jax.Array, key: PRNGKey
    ) -> tuple[_Joint, Scalar]:
        wanted = jnp.where(jnp.arange(len(labels)) < own, target, labels)

        def loss_fn(pattern: PyTree, params: PyTree) -> tuple[Scalar, PyTree]:
            drawings, attacked, crossed = Drawings(mask, pattern), images[:own], slice(own, own + cross)
            shown = jnp.concatenate(
                [
                    draw(drawings, attacked, attacked),
                    draw(drawings, images[crossed], others[crossed]),
                    images[own + cross :],
                ]
            )
            logits, moved = forward_of_halves(apply_fn, params, joint.rest, shown, key)
            loss = mean_cross_entropy(logits, wanted, jnp.ones(len(labels), bool))
            patterns = (pattern_of(pattern, some[:own]) for some in (images, others))
            alike = diversity_loss(attacked, others[:own], *patterns)
            return loss + diversity * alike, moved

        (loss, rest), (gradient, gradient_of_params) = jax.value_and_grad(loss_fn, (0, 1), has_aux=True)(
            joint.pattern, joint.params
        )
        updates, state = optimizer.update(gradient, joint.state)
        params, velocity = momentum_step(
            joint.params,
            joint.velocity,
            gradient_of_params,
            rate=_CLASSIFIER_RATE,
            momentum=_MOMENTUM,
            weight_decay=_DECAY,
        )
        return _Joint(optax.apply_updates(joint.pattern, updates), state, params, rest, velocity), loss

    return Compiled(step)


def _check_finite(loss: Scalar, what: str) -> None:
    if not bool(jnp.isfinite(loss)):
        raise DivergedError(
            f"Training the {what}s of the input-aware trigger gave a loss of {float(loss)}; give a lower rate."
        )
