"""Triggers and perturbations that are made with a network that somebody trained on clean images."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxunlearn._runtime import Compiled
from jaxunlearn._typing import ApplyFn, Images, Labels, PRNGKey, Scalar, Variables
from jaxunlearn.losses import mean_cross_entropy


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


def interpolated(images: Images, key: PRNGKey, *, share: float) -> jax.Array:
    """Mixes every image with another one of the batch, so that a trigger is easier to learn than their contents.

    Source: ours, in pixels; Turner et al. interpolate in the latent space of a generative network.
    """
    images = jnp.asarray(images)
    others = images[jax.random.permutation(key, len(images))]
    return (1 - share) * images + share * others


def optimised_patch(
    surrogate: Surrogate, target: int, key: PRNGKey, *, size: int, offset: int, steps: int = 200
) -> tuple[Float[Array, "h w c"], Float[Array, "h w 1"]]:
    """A square that excites the feature which speaks most for the target's class (TrojanNN).

    The feature is the penultimate one whose mean over the target's images exceeds that over all images most, in
    standard deviations. Adam on the square's pixels, kept in [0, 1], from random ones.

    Args:
      surrogate: the network; its ``aux`` has ``features``.
      target: the class.
      key: of the pixels that it starts from.
      size: side of the square.
      offset: pixels between the square and the lower right edges.
      steps: of ascent.

    Returns:
      The picture, zero outside the square, and the mask of the square.

    Source: Liu et al., "Trojaning attack on neural networks", NDSS 2018; here the neuron is a penultimate one.
    """
    images, labels = jnp.asarray(surrogate.images[:500]), jnp.asarray(surrogate.labels[:500])
    height, width, channels = images.shape[1:]
    rows, columns = (jnp.arange(side) for side in (height, width))
    inside = [(p >= s - offset - size) & (p < s - offset) for p, s in ((rows, height), (columns, width))]
    mask = (inside[0][:, None] & inside[1][None, :])[..., None].astype(images.dtype)

    features = surrogate.apply_fn(surrogate.variables, images, train=False)[1]["features"]
    own = (labels == target)[:, None]
    speaks = (jnp.sum(features * own, 0) / jnp.maximum(jnp.sum(own), 1) - features.mean(0)) / (
        features.std(0) + 1e-6
    )
    neuron = jnp.argmax(speaks)
    shown = images[:100]

    def excitation(variables: Variables, picture: jax.Array, shown: jax.Array, neuron: jax.Array) -> Scalar:
        triggered = shown * (1 - mask) + picture * mask
        return -jnp.mean(surrogate.apply_fn(variables, triggered, train=False)[1]["features"][:, neuron])

    gradient = Compiled(jax.grad(excitation, argnums=1))
    optimizer = optax.adam(0.05)
    picture = jax.random.uniform(key, (height, width, channels))
    state = optimizer.init(picture)
    for _ in range(steps):
        updates, state = optimizer.update(gradient(surrogate.variables, picture, shown, neuron), state)
        picture = jnp.clip(optax.apply_updates(picture, updates), 0, 1)
    return picture * mask, mask
