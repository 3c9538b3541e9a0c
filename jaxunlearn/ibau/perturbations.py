"""The inner problem of I-BAU: perturbations that many images share.

The published method has one perturbation, which leads images away from the model's own answer. Here
there may be several (``jaxunlearn._universal``), each image carrying one of them: one alone may find the backdoor
or a perturbation that every network has.
"""

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxunlearn import _universal
from jaxunlearn._loop import Batch
from jaxunlearn._typing import ApplyFn, Images, Number, PRNGKey, Scalar, Variables
from jaxunlearn._universal import Ascent, Kinds, Perturbations, carried, draw_kinds
from jaxunlearn.ibau.config import Config
from jaxunlearn.losses import masked_mean


def kinds_of(config: Config, classes: int) -> int:
    """The number of perturbations: one for every class where asked for, and one that leads away."""
    return classes + 1 if config.perturbations == "classes" else 1


def start(config: Config, shape: tuple[int, ...], dtype: DTypeLike) -> Ascent:
    """Zero perturbations of shape (kinds, h, w, c)."""
    radius = None if config.ascent == "growing" else config.radius
    return _universal.start(shape, dtype, radius, _optimizer(config).init(jnp.zeros(shape, dtype)))


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
    losses = _universal.losses(logits, batch.labels, kinds, len(delta))
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
    ascent = _universal.counted(ascent, kinds, answers, jnp.argmax(logits, axis=1), batch.mask)
    if config.ascent == "growing":
        radius = _universal.grown(ascent, config.enough, limit)
        steps, optimizer = _universal.along(gradient, config.ascent_rate * radius), ascent.optimizer
    else:
        radius = ascent.radius
        steps, optimizer = _optimizer(config).update(gradient, ascent.optimizer)
    delta = _universal.projected(ascent.delta + steps, radius)
    return ascent._replace(delta=delta, optimizer=optimizer, radius=radius), loss


def clipped(images: Images, config: Config) -> Images:
    """Pixels as the network sees them."""
    return jnp.clip(images, 0, 1) if config.clip_pixels else images


def _optimizer(config: Config) -> optax.GradientTransformation:
    if config.ascent == "growing":
        return optax.identity()
    direction = {"sgd": optax.identity, "adam": optax.scale_by_adam}[config.ascent]()
    return optax.chain(direction, optax.scale(-1), optax.scale(config.ascent_rate))
