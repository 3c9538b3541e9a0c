"""The inner problem of SAU: perturbations that fool two models into the same answer.

The models are the current one and the backdoored one it came from. A *shared adversarial example* is an
image that both answer otherwise than its clean original, and alike. In the published method every image has
its own perturbation, and nearly all that are found are those that every network has. Here the images
may share them besides (``jaxunlearn._universal``): what sends all images to one class tells more.
"""

import functools
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxunlearn import _loop, _universal
from jaxunlearn._loop import Batch
from jaxunlearn._random import uniform
from jaxunlearn._typing import ApplyFn, Images, Labels, Mask, PRNGKey, Scalar, Variables
from jaxunlearn._universal import Ascent
from jaxunlearn.losses import jensen_shannon, masked_mean
from jaxunlearn.sau.config import Config

Perturbations: TypeAlias = Float[Array, "n h w c"]
Models: TypeAlias = tuple[Variables, Variables]
"""The current model and the backdoored one."""

Answers: TypeAlias = tuple[Labels, Labels]
"""What the two models answer."""

_LEAST_PROBABILITY = 1e-8  # in the official Jensen-Shannon divergence

_ORDERS = {"l1": 1, "l2": 2}
_PROJECTIONS = {
    "linf": optax.projections.projection_linf_ball,
    "l2": optax.projections.projection_l2_ball,
    "l1": optax.projections.projection_l1_ball,
}


def search(
    apply_fn: ApplyFn,
    models: Models,
    batch: Batch,
    answers: Answers,
    config: Config,
    key: PRNGKey,
) -> Perturbations:
    """Perturbations that fool both models alike, by projected gradient descent on ``search_loss``.

    A step goes against the gradient's sign (or unit vector, in an l2 or l1 ball) and back into the ball. An image
    that is a shared adversarial example already has a gradient of exactly zero and stays where it is, so that it
    is not looked at again.

    Args:
      apply_fn: the network of both models; runs in evaluation mode.
      models: variables of the current and of the backdoored model.
      batch: clean images with their true labels.
      answers: of the two models to the clean images.
      config: ball, start and steps.
      key: of a random start.

    Returns:
      One perturbation per image, each in its ball, in pixel units.

    Source: Wei et al., "Shared adversarial unlearning: backdoor mitigation by unlearning shared adversarial
    examples", NeurIPS 2023; official code, ``Shared_PGD``.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)) * variables, {})
      >>> batch = Batch(jnp.full((1, 4, 4, 2), 0.5).at[..., 0].set(0.6), jnp.array([0]), jnp.ones(1, bool))
      >>> answers = (batch.labels, batch.labels)
      >>> delta = search(apply_fn, (1.0, 2.0), batch, answers, Config(), jax.random.key(0))
      >>> jnp.abs(delta[0, 0, 0]).round(1).tolist()  # the first channel gets darker than the second
      [0.0, 0.20000000298023224]
    """

    def look(part: tuple[Perturbations, Batch, Answers]) -> tuple[Perturbations, Mask]:
        losses = jax.grad(_loss_and_shared, argnums=2, has_aux=True)
        return losses(apply_fn, models, *part, config)

    def step(carry: tuple[Perturbations, Mask]) -> tuple[Perturbations, Mask]:
        delta, searched = carry
        gradient, shared = _loop.where_needed(look, searched, (delta, batch, answers))
        delta = _projected(delta - config.step_size * _direction(gradient, config), batch.images, config)
        return delta, searched & ~shared

    start = _projected(config.radius * _start(batch.images, config, key), batch.images, config)
    return _loop.iterate(step, (start, batch.mask), config.search_steps)[0]


def search_loss(
    apply_fn: ApplyFn, models: Models, delta: Perturbations, batch: Batch, answers: Answers, config: Config
) -> Scalar:
    """What the search minimises, a mean over the images.

    -l_1 (CE(f(x + d), y) + CE(f_0(x + d), y)) / 2 + l_2 JS(f(x + d), f_0(x + d)), where a cross-entropy
    counts until its model is led away from its clean answer, and the Jensen-Shannon divergence until both
    are led to the same class.

    Args:
      apply_fn: the network of both models.
      models: variables of f and f_0.
      delta: d, of every image.
      batch: clean images with their true labels.
      answers: of f and f_0 to the clean images.
      config: l_1 = ``fooling_weight``, l_2 = ``agreement_weight``, and whether to clamp.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)) * variables, {})
      >>> batch = Batch(jnp.zeros((1, 4, 4, 2)), jnp.array([0]), jnp.ones(1, bool))
      >>> answers = (batch.labels, batch.labels)
      >>> float(search_loss(apply_fn, (1.0, 1.0), batch.images, batch, answers, Config()))  # -0.01 log 2
      -0.006931...
    """
    return _loss_and_shared(apply_fn, models, delta, batch, answers, config)[0]


def _loss_and_shared(
    apply_fn: ApplyFn, models: Models, delta: Perturbations, batch: Batch, answers: Answers, config: Config
) -> tuple[Scalar, Mask]:
    """``search_loss``, and which images are shared adversarial examples."""
    logits = [apply_fn(variables, batch.images + delta, train=False)[0] for variables in models]
    predicted = [jnp.argmax(one, axis=1) for one in logits]
    led_away = [now != clean for now, clean in zip(predicted, answers, strict=True)]
    shared = led_away[0] & led_away[1] & (predicted[0] == predicted[1])
    true_class = [
        jnp.where(done, 0, optax.losses.softmax_cross_entropy_with_integer_labels(one, batch.labels))
        for one, done in zip(logits, led_away, strict=True)
    ]
    apart = jensen_shannon(logits[0], logits[1], floor=_LEAST_PROBABILITY if config.clamps else 0.0)
    losses = -config.fooling_weight * sum(true_class) / 2 + config.agreement_weight * jnp.where(
        shared, 0, apart
    )
    return masked_mean(losses, batch.mask), shared


def climb(
    apply_fn: ApplyFn,
    models: Sequence[Variables],
    ascent: Ascent,
    batch: Batch,
    answers: Labels,
    config: Config,
    key: PRNGKey,
) -> Ascent:
    """One step of perturbations that images share, towards fooling all models.

    Down the sum over the models of the mean margin by which they miss the class of the perturbation
    (``jaxunlearn._universal.losses``). Whether one works is judged by the backdoored model, which does not change:
    the ball stays as small as its backdoor allows, and a class that was suspected remains so.

    Args:
      apply_fn: the network of all models.
      models: variables of the current and of the backdoored model, or of that alone.
      ascent: the perturbations so far.
      batch: clean images; their labels are not used.
      answers: of the backdoored model to the clean images.
      config: step size, largest radius, and whether to clip pixels.
      key: of which image carries which perturbation.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)) * variables, {})
      >>> batch = Batch(jnp.full((2, 4, 4, 2), 0.5), jnp.zeros(2, int), jnp.ones(2, bool))
      >>> ascent = _universal.start((3, 4, 4, 2), float)
      >>> key = jax.random.key(0)
      >>> ascent = climb(apply_fn, (1.0, 2.0), ascent, batch, jnp.zeros(2, int), Config(), key)
      >>> jnp.sign(ascent.delta[1, 0, 0]).tolist()  # towards class 1
      [-1.0, 1.0]
    """
    shares = _universal.trial_shares(_universal.suspect(ascent, config.focus))
    kinds = _universal.draw_kinds(key, shares, answers)

    def loss_fn(delta: _universal.Perturbations) -> tuple[Scalar, Labels]:
        perturbed = shown(batch.images, _universal.carried(delta, kinds), config)
        logits = [apply_fn(variables, perturbed, train=False)[0] for variables in models]
        losses = [
            masked_mean(_universal.losses(one, answers, kinds, len(delta)), batch.mask) for one in logits
        ]
        return sum(losses, start=jnp.zeros(())), jnp.argmax(logits[-1], axis=1)

    gradient, reached = jax.grad(loss_fn, has_aux=True)(ascent.delta)
    ascent = _universal.counted(ascent, kinds, answers, reached, batch.mask)
    radius = _universal.grown(ascent, config.enough, config.radius)
    steps = _universal.along(gradient, config.step_size * radius)
    return ascent._replace(delta=_universal.projected(ascent.delta + steps, radius), radius=radius)


def shown(images: Images, delta: Perturbations, config: Config) -> Images:
    """Perturbed images as the networks see them."""
    return jnp.clip(images + delta, 0, 1) if config.clip_pixels else images + delta


def _start(images: Images, config: Config, key: PRNGKey) -> Perturbations:
    """Where the search starts, in multiples of the radius."""
    if config.start == "random":
        return uniform(key, images.shape, images.dtype, -1, 1)
    return jnp.full_like(images, {"max": 1, "min": -1, "zero": 0}[config.start])


def _direction(gradient: Perturbations, config: Config) -> Perturbations:
    """Of the gradient of every image, its sign or its unit vector, of norm one in the ball's norm; zero stays."""
    if config.norm == "linf":
        return jnp.sign(gradient)
    pixels = (1, 2, 3)
    largest = jnp.max(jnp.abs(gradient), axis=pixels, keepdims=True)
    scaled = gradient / jnp.maximum(largest, jnp.finfo(gradient.dtype).tiny)  # squares must not underflow
    norm = jnp.sum(jnp.abs(scaled) ** _ORDERS[config.norm], axis=pixels, keepdims=True)
    return scaled / jnp.maximum(norm, 1) ** (1 / _ORDERS[config.norm])


def _projected(delta: Perturbations, images: Images, config: Config) -> Perturbations:
    """The nearest perturbations in the ball and, where asked for, within the range of pixels."""
    inside = jax.vmap(functools.partial(_PROJECTIONS[config.norm], scale=config.radius))(delta)
    return jnp.clip(images + inside, 0, 1) - images if config.clip_pixels else inside
