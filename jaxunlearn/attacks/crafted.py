"""Triggers and perturbations that are made with a network that somebody trained on clean images."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxunlearn._check import DivergedError, InputError
from jaxunlearn._optimizers import momentum_step
from jaxunlearn._random import draw_rows, uniform
from jaxunlearn._runtime import Compiled
from jaxunlearn._training import forward_of_halves
from jaxunlearn._tree import all_finite, combine, partition, trainable_mask
from jaxunlearn._typing import AnyImages, ApplyFn, Images, Labels, PRNGKey, Scalar, Variables
from jaxunlearn.losses import mean_cross_entropy

_COMPARED = 500  # images of the target's class, and of all, whose features are looked at
_EXCITED = 100
_EXCITING = optax.adam(0.05)


Progress = Callable[[float], None]
"""Told the share of a training that is done."""


def unseen(share: float) -> None:
    """Nobody is told."""
    del share


class Surrogate(NamedTuple):
    """A clean network, and clean images of its training with their classes."""

    apply_fn: ApplyFn
    variables: Variables
    images: Images
    labels: Labels


def adversarial(
    surrogate: Surrogate, images: Images, labels: Labels, *, radius: float, steps: int = 20
) -> jax.Array:
    """Moves images away from their class in the eyes of a clean network, so that a trigger is easier to learn.

    Projected ascent on the cross-entropy in the ball of max norm, by 2.5 radius / steps times the gradient's sign.

    Args:
      surrogate: the network.
      images: pixels in [0, 1].
      labels: their classes.
      radius: in pixels of [0, 1].
      steps: of ascent.

    Source: Turner et al., "Label-consistent backdoor attacks", 2019, the variant with adversarial perturbations.
    """
    step = _ascent(surrogate.apply_fn)
    moved = images = jnp.asarray(images)
    for _ in range(steps):
        moved = step(surrogate.variables, images, moved, jnp.asarray(labels), radius, 2.5 * radius / steps)
    return moved


def robust(
    surrogate: Surrogate,
    key: PRNGKey,
    *,
    radius: float,
    steps: int,
    batch_size: int = 128,
    rate: float = 0.01,
    momentum: float = 0.9,
    progress: Progress = unseen,
) -> Surrogate:
    """The network, trained on against perturbations of its images, so that what fools it is no mere noise.

    Every step of SGD is on images x + u moved by 1.25 radius times the sign of the gradient there, u being uniform in
    the ball; all stays within the ball and within [0, 1]. What fools an ordinary network is a texture that a poisoned
    model learns in place of the trigger: on CIFAR-10 such a model took all perturbed images for the attack's class, and
    2 % of the triggered ones.

    Args:
      surrogate: the network.
      key: of images, starts and dropout.
      radius: in pixels of [0, 1], in max norm.
      steps: of training; 0 leaves the network as it is.
      batch_size: images in a step.
      rate: learning rate.
      momentum: share of the velocity that stays.
      progress: told the share of the steps that is done.

    Raises:
      DivergedError: if the training gives NaN or infinity.

    Source: Turner et al., 2019, perturb by networks that were so trained; the training is that of Wong et al., "Fast is
    better than free", ICLR 2020.
    """
    variables, count = surrogate.variables, len(surrogate.labels)
    params, rest = partition(jax.tree.map(jnp.asarray, variables), trainable_mask(variables))
    velocity, step = optax.tree.zeros_like(params), _robust_step(surrogate.apply_fn)
    for number, one in enumerate(jax.random.split(key, steps), 1):
        rows_key, start_key, dropout_key = jax.random.split(one, 3)
        rows = draw_rows(rows_key, count, min(batch_size, count))
        images, labels = jnp.asarray(surrogate.images[rows]), jnp.asarray(surrogate.labels[rows])
        keys = (start_key, dropout_key)
        params, rest, velocity = step((params, rest, velocity), images, labels, keys, radius, rate, momentum)
        progress(number / steps)
    if not bool(all_finite((params, rest))):
        raise DivergedError(
            "Training the network that makes the attack's images, against perturbations, gave NaN or infinite values; "
            "give a smaller robust_radius or fewer robust_steps."
        )
    return surrogate._replace(variables=combine(params, rest))


@functools.lru_cache(maxsize=16)
def _robust_step(apply_fn: ApplyFn) -> Compiled:
    def step(
        carry: tuple[PyTree, PyTree, PyTree],
        images: jax.Array,
        labels: jax.Array,
        keys: tuple[PRNGKey, PRNGKey],
        radius: Scalar,
        rate: Scalar,
        momentum: Scalar,
    ) -> tuple[PyTree, PyTree, PyTree]:
        params, rest, velocity = carry
        everyone = jnp.ones(len(images))

        def loss_fn(params: PyTree, offset: jax.Array) -> tuple[Scalar, PyTree]:
            logits, moved = forward_of_halves(apply_fn, params, rest, images + offset, keys[1])
            return mean_cross_entropy(logits, labels, everyone), moved

        def within(offset: jax.Array) -> jax.Array:
            return jnp.clip(images + jnp.clip(offset, -radius, radius), 0, 1) - images

        start = within(radius * uniform(keys[0], images.shape, images.dtype, low=-1.0))
        slope, _ = jax.grad(loss_fn, argnums=1, has_aux=True)(params, start)
        offset = within(start + 1.25 * radius * jnp.sign(slope))
        gradient, moved = jax.grad(loss_fn, has_aux=True)(params, offset)
        params, velocity = momentum_step(
            params, velocity, gradient, rate=rate, momentum=momentum, weight_decay=0.0
        )
        return params, moved, velocity

    return Compiled(step)


@functools.lru_cache(maxsize=16)
def _ascent(apply_fn: ApplyFn) -> Compiled:
    def step(
        variables: Variables,
        images: jax.Array,
        moved: jax.Array,
        labels: jax.Array,
        radius: Scalar,
        rate: Scalar,
    ) -> jax.Array:
        def loss_fn(x: jax.Array) -> Scalar:
            return mean_cross_entropy(apply_fn(variables, x, train=False)[0], labels, jnp.ones(len(x)))

        moved = moved + rate * jnp.sign(jax.grad(loss_fn)(moved))
        return jnp.clip(jnp.clip(moved, images - radius, images + radius), 0, 1)

    return Compiled(step)


def interpolated(
    clean: AnyImages,
    labels: Labels,
    images: Float[Array | np.ndarray, "m h w c"],
    target: int,
    key: PRNGKey,
    *,
    share: float,
) -> Float[Array, "m h w c"]:
    """Mixes images of the target's class with images of others, so that a trigger is easier to learn than contents.

    Args:
      clean: images of all classes, of which those of others are mixed in.
      labels: of the clean images.
      images: of the target's class, pixels in [0, 1].
      target: the class.
      key: draws an image of another class for each.
      share: of that image.

    Raises:
      InputError: if there is no image of another class.

    Source: ours, in pixels; Turner et al. interpolate in the latent space of a generative network.
    """
    others = _rows(np.asarray(labels) != target, f"of another class than the target {target}")
    drawn = np.asarray(jax.random.choice(key, others, (len(images),)))
    return (1 - share) * jnp.asarray(images) + share * jnp.asarray(clean[drawn])


def optimised_patch(
    surrogate: Surrogate, target: int, key: PRNGKey, mask: Float[Array, "h w 1"], *, steps: int = 200
) -> Float[Array, "h w c"]:
    """A patch that excites the feature which speaks most for the target's class (TrojanNN).

    The feature is the penultimate one whose mean over the target's images exceeds that over all images most, in
    standard deviations. Adam on the patch's pixels, kept in [0, 1], from random ones.

    Args:
      surrogate: the network; its ``aux`` has ``features``.
      target: the class.
      key: of the pixels that it starts from.
      mask: one where the patch is, zero elsewhere.
      steps: of ascent.

    Returns:
      The picture, zero outside the patch.

    Raises:
      InputError: if there is no image of the target's class.

    Source: Liu et al., "Trojaning attack on neural networks", NDSS 2018; here the neuron is a penultimate one.
    """
    labels = np.asarray(surrogate.labels)
    everything = np.arange(len(labels))

    def features(rows: Int[np.ndarray, " k"]) -> Float[Array, "n d"]:
        images = _spread(surrogate.images, rows, _COMPARED)
        return surrogate.apply_fn(surrogate.variables, images, train=False)[1]["features"]

    own, usual = features(_rows(labels == target, f"of the target class {target}")), features(everything)
    neuron = jnp.argmax((own.mean(0) - usual.mean(0)) / (usual.std(0) + 1e-6))
    shown = _spread(surrogate.images, everything, _EXCITED)

    picture, step = uniform(key, shown.shape[1:], shown.dtype), _exciting_step(surrogate.apply_fn)
    state = _EXCITING.init(picture)
    for _ in range(steps):
        picture, state = step(picture, state, surrogate.variables, shown, mask, neuron)
    return picture * mask


@functools.lru_cache(maxsize=4)
def _exciting_step(apply_fn: ApplyFn) -> Compiled:
    """A step of a picture that is to excite a feature where it is stamped on images."""

    def excitation(
        picture: jax.Array, variables: Variables, shown: Images, mask: jax.Array, neuron: jax.Array
    ) -> Scalar:
        triggered = shown * (1 - mask) + picture * mask
        return -jnp.mean(apply_fn(variables, triggered, train=False)[1]["features"][:, neuron])

    def step(picture: jax.Array, state: PyTree, *given: Any) -> tuple[jax.Array, PyTree]:
        updates, state = _EXCITING.update(jax.grad(excitation)(picture, *given), state)
        return jnp.clip(optax.apply_updates(picture, updates), 0, 1), state

    return Compiled(step)


def _rows(marked: Bool[np.ndarray, " n"], what: str) -> Int[np.ndarray, " k"]:
    """The rows of the marked images.

    Raises:
      InputError: if there are none.
    """
    if not marked.any():
        raise InputError(
            f"None of the {len(marked)} images to train on is {what}, and the attack is made with such; give other "
            "images or another target."
        )
    return np.flatnonzero(marked)


def _spread(images: Images, rows: Int[np.ndarray, " k"], most: int) -> jax.Array:
    """Images of so many rows at most, at equal distances."""
    return jnp.asarray(images[rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]])
