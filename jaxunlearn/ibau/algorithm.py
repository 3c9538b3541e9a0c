"""I-BAU: adversarial unlearning of backdoors by implicit hypergradient.

One perturbation delta, shared by all images, is found by ascent; the parameters then descend on images
that carry it, along the total derivative of that loss with delta seen as a function of the parameters:

    L_in(delta, theta)  = -mean_i CE(f_theta(x_i + delta), y_i) + lambda ||delta||_2^2
    L_out(delta, theta) =  mean_i CE(f_theta(x_i + m_i delta), y_i),      m_i = 0 for most images
    Phi(delta, theta)   =  delta - eta grad_delta L_in(delta, theta)

The network runs in evaluation mode throughout: running statistics stay as they are.

Source: Zeng et al., "Adversarial unlearning of backdoors via implicit hypergradient", ICLR 2022,
arXiv:2110.03735; official code github.com/YiZeng623/I-BAU, defense.py and hypergrad.py.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxunlearn import _loop
from jaxunlearn._check import check_images_and_labels
from jaxunlearn._implicit import Hypergradient, hypergradient, solver
from jaxunlearn._loop import Batch, Data, Execution, Method, Rows
from jaxunlearn._optimizers import scale_by_torch_amsgrad
from jaxunlearn._runtime import Compiled
from jaxunlearn._tree import combine, partition, trainable_mask
from jaxunlearn._typing import ApplyFn, Images, Labels, Perturbation, PRNGKey, Scalar, Variables
from jaxunlearn.ibau.config import Config
from jaxunlearn.losses import mean_cross_entropy
from jaxunlearn.pixels import augment


class State(NamedTuple):
    """Everything between two rounds; a pytree of arrays.

    Attributes:
      params: the trained half of the variables, None elsewhere.
      frozen: the other half.
      optimizer: state of the parameters' optimizer.
      perturbations: delta of every round so far; zeros for the rounds to come.
      round: rounds done.
      key: the run's key, the same in every round.
      config: the settings; its numbers are leaves.
    """

    params: PyTree
    frozen: PyTree
    optimizer: PyTree
    perturbations: Float[Array, "rounds h w c"]
    round: Int[Array, ""]
    key: PRNGKey
    config: Config


class RoundStats(NamedTuple):
    """What one round did.

    Attributes:
      inner_loss: mean over the steps of L_in, with the model's own predictions as labels.
      outer_loss: mean over the steps of L_out.
      perturbation_norm: l2 norm of delta, in pixel units.
      direct_norm: mean l2 norm of the direct part of the hypergradient.
      implicit_norm: mean l2 norm of its implicit part.
    """

    inner_loss: Scalar
    outer_loss: Scalar
    perturbation_norm: Scalar
    direct_norm: Scalar
    implicit_norm: Scalar


def unlearn(
    apply_fn: ApplyFn,
    variables: Variables,
    images: Images,
    labels: Labels,
    config: Config,
    key: PRNGKey,
    *,
    execution: Execution | None = None,
) -> tuple[Variables, RoundStats]:
    """Removes backdoors from a classifier with a few clean images.

    Args:
      apply_fn: the network, ``apply_fn(variables, images, train=False) -> (logits, aux)``.
      variables: of the network, any pytree; of one with a ``"params"`` entry only that entry changes.
      images: clean images, floating, NHWC, in [0, 1].
      labels: their true classes, integers.
      config: what to compute; ``PRESETS["default"]`` for a start.
      key: of all random choices.
      execution: how to compute it; under a surrounding ``jit`` give ``Execution(loop="scan")``.

    Returns:
      Cleaned variables of the same structure, shapes and dtypes, and the statistics, stacked by round.

    Raises:
      ValueError: if the images or labels do not have the shape and dtype described.
      NonFiniteError: if a round gives NaN or infinite values.

    Example:
      >>> def apply_fn(params, x, *, train):
      ...     return x.mean((1, 2)) @ params["w"], {}
      >>> params = {"w": jnp.eye(3)}
      >>> x = jax.random.uniform(jax.random.key(0), (8, 4, 4, 3))
      >>> y = jnp.arange(8) % 3
      >>> cleaned, stats = unlearn(apply_fn, params, x, y, Config(rounds=2), jax.random.key(1))
      >>> stats.outer_loss.shape
      (2,)
    """
    data = Data(images, labels)
    method = make_method(apply_fn, execution or Execution())
    state = method.init(variables, data, config, key)
    history = []
    for _, new_state, stats in _loop.rounds(method.step, state, data, 1, config.rounds):
        state = new_state
        history.append(stats)
    return method.finish(state), jax.tree.map(lambda *leaves: jnp.stack(leaves), *history)


def make_method(apply_fn: ApplyFn, execution: Execution) -> Method:
    """I-BAU for one network as ``init``, ``step`` and ``finish``; equal arguments share compiled programs."""
    return _make_method(apply_fn, execution)


@functools.lru_cache(maxsize=16)
def _make_method(apply_fn: ApplyFn, execution: Execution) -> Method:
    ascend = Compiled(functools.partial(_ascend, apply_fn))
    descend = Compiled(functools.partial(_descend, apply_fn))
    return Method(init, functools.partial(_round, ascend, descend, execution), finish)


def init(variables: Variables, data: Data, config: Config, key: PRNGKey) -> State:
    """The state before the first round."""
    check_images_and_labels(data.images, data.labels)
    params, frozen = partition(jax.tree.map(jnp.asarray, variables), trainable_mask(variables))
    perturbations = jnp.zeros((config.rounds, *data.images.shape[1:]), data.images.dtype)
    optimizer = _optimizer(config).init(params)
    config = jax.tree.map(lambda number: jnp.asarray(number, data.images.dtype), config)
    return State(params, frozen, optimizer, perturbations, jnp.asarray(0), key, config)


def finish(state: State) -> Variables:
    """The variables of a state."""
    return combine(state.params, state.frozen)


def inner_loss(
    apply_fn: ApplyFn, variables: Variables, delta: Perturbation, batch: Batch, config: Config
) -> Scalar:
    """L_in: the negative cross-entropy of images that all carry delta, plus the penalty."""
    images = _clipped(batch.images + delta, config)
    loss = _cross_entropy(apply_fn, variables, batch._replace(images=images))
    return config.penalty * jnp.sum(delta**2) - loss


def outer_loss(
    apply_fn: ApplyFn,
    variables: Variables,
    delta: Perturbation,
    batch: Batch,
    weights: Float[Array, " n"],
    config: Config,
) -> Scalar:
    """L_out: the cross-entropy of images that carry ``weights[i] * delta``."""
    images = _clipped(batch.images + weights[:, None, None, None] * delta, config)
    return _cross_entropy(apply_fn, variables, batch._replace(images=images))


def ascent_step(
    apply_fn: ApplyFn, variables: Variables, delta: Perturbation, optimizer: PyTree, batch: Batch, config: Config
) -> tuple[Perturbation, PyTree, Scalar]:
    """One step of delta down L_in, with the network's own predictions on the clean images as labels.

    Returns:
      The new delta, the new state of its optimizer, and L_in before the step.
    """
    predicted = jnp.argmax(apply_fn(variables, batch.images, train=False)[0], axis=1)
    loss, gradient = jax.value_and_grad(
        lambda d: inner_loss(apply_fn, variables, d, batch._replace(labels=predicted), config)
    )(delta)
    updates, optimizer = _ascent(config).update(gradient, optimizer)
    return _projected(delta + updates, config), optimizer, loss


def unlearning_hypergradient(
    apply_fn: ApplyFn,
    params: PyTree,
    frozen: PyTree,
    delta: Perturbation,
    inner: Batch,
    outer: Batch,
    weights: Float[Array, " n"],
    config: Config,
) -> Hypergradient:
    """L_out, its total derivative in the parameters, and the direct part of that.

    Args:
      apply_fn: the network.
      params: the trained half of its variables (see ``partition``).
      frozen: the other half.
      delta: the perturbation, a constant.
      inner: the batch of L_in inside Phi, with its true labels.
      outer: the batch of L_out.
      weights: the multiple of delta that each image of ``outer`` carries.
      config: eta, lambda and the solver.
    """

    def fixed_point_fun(d: Perturbation, theta: PyTree) -> Perturbation:
        gradient = jax.grad(lambda e: inner_loss(apply_fn, combine(theta, frozen), e, inner, config))(d)
        return d - config.fixed_point_step * gradient

    def outer_fun(d: Perturbation, theta: PyTree) -> Scalar:
        return outer_loss(apply_fn, combine(theta, frozen), d, outer, weights, config)

    solve = solver(config.solver, config.solver_steps, damping=config.damping)
    return hypergradient(outer_fun, fixed_point_fun, delta, params, solve)


def _round(
    ascend: Compiled, descend: Compiled, execution: Execution, state: State, data: Data
) -> tuple[State, RoundStats]:
    """One round: a pass of ascent from zero, then a pass of descent with the delta found."""
    config, count = state.config, len(data.labels)
    order_key, ascent_key, descent_key = jax.random.split(jax.random.fold_in(state.key, state.round), 3)
    if config.shuffle == "once":
        order_key = state.key
    rows = _loop.batch_rows(count, config.batch_size, None if config.shuffle == "never" else order_key)
    keys = jax.random.split(ascent_key, len(rows.index))
    zero = jnp.zeros_like(state.perturbations[0])
    (delta, _), inner_losses = _loop.fold(
        ascend,
        (state.params, state.frozen, config),
        (zero, _ascent(config).init(zero)),
        (rows, keys),
        lambda x: (data.gather(x[0]), x[1]),
        execution,
    )
    perturbations = state.perturbations.at[state.round].set(delta)
    first = Rows(rows.index[0], rows.mask[0])
    keys = jax.random.split(descent_key, (len(rows.index), 2))
    rates = _learning_rates(config, state.round, len(rows.index))
    (params, optimizer), (outer_losses, direct_norms, implicit_norms) = _loop.fold(
        descend,
        (state.frozen, perturbations, state.round, config),
        (state.params, state.optimizer),
        (rows, _inner_rows(first, rows, keys[:, 0], count, config), keys[:, 1], rates),
        lambda x: (data.gather(x[0]), data.gather(x[1]), x[2], x[3]),
        execution,
    )
    stats = RoundStats(
        jnp.mean(inner_losses),
        jnp.mean(outer_losses),
        optax.tree.norm(delta),
        jnp.mean(direct_norms),
        jnp.mean(implicit_norms),
    )
    return (
        state._replace(
            params=params, optimizer=optimizer, perturbations=perturbations, round=state.round + 1
        ),
        stats,
    )


def _inner_rows(first: Rows, rows: Rows, keys: jax.Array, count: int, config: Config) -> Rows:
    """The batch of L_in for every step of descent."""
    if config.inner_batch == "first":
        return jax.tree.map(lambda leaf, like: jnp.broadcast_to(leaf, like.shape), first, rows)
    size = rows.index.shape[1]
    draw = jax.vmap(lambda key: jax.random.choice(key, count, (size,), replace=False))
    return Rows(draw(keys), jnp.ones_like(rows.mask))


def _ascend(apply_fn: ApplyFn, consts: PyTree, carry: PyTree, x: tuple[Batch, PRNGKey]) -> tuple[PyTree, Scalar]:
    params, frozen, config = consts
    delta, optimizer = carry
    batch, key = x
    batch = _augmented(batch, key, config)
    delta, optimizer, loss = ascent_step(apply_fn, combine(params, frozen), delta, optimizer, batch, config)
    return (delta, optimizer), loss


def _descend(
    apply_fn: ApplyFn, consts: PyTree, carry: PyTree, x: tuple[Batch, Batch, PRNGKey, Scalar]
) -> tuple[PyTree, tuple[Scalar, Scalar, Scalar]]:
    frozen, perturbations, current, config = consts
    params, optimizer = carry
    outer, inner, key, rate = x
    weights_key, outer_key, inner_key = jax.random.split(key, 3)
    outer, inner = _augmented(outer, outer_key, config), _augmented(inner, inner_key, config)
    weights = _weights(weights_key, outer.mask, current, len(perturbations), config)
    # Earlier perturbations are constants; only the current one is a function of the parameters.
    now = jax.nn.one_hot(current, len(perturbations), dtype=weights.dtype)
    earlier = jnp.einsum("nr,rhwc->nhwc", weights * (1 - now), perturbations)
    result = unlearning_hypergradient(
        apply_fn,
        params,
        frozen,
        perturbations[current],
        inner,
        outer._replace(images=outer.images + earlier),
        weights @ now,
        config,
    )
    directions, optimizer = _optimizer(config).update(result.gradient, optimizer, params)
    params = jax.tree.map(lambda p, d: p - rate * d, params, directions)
    norms = (optax.tree.norm(result.direct), optax.tree.norm(optax.tree.sub(result.gradient, result.direct)))
    return (params, optimizer), (result.value, *norms)


def _weights(
    key: PRNGKey, mask: jax.Array, current: jax.Array, perturbations: int, config: Config
) -> Float[Array, "n rounds"]:
    """The multiple of every perturbation that every image carries; at most one is not zero."""
    chosen_key, which_key, scale_key = jax.random.split(key, 3)
    count = len(mask)
    # Ranks of a random order, in which the padding comes last.
    rank = jnp.argsort(jnp.argsort(jnp.where(mask, jax.random.uniform(chosen_key, (count,)), 2.0)))
    images = jnp.sum(mask)
    chosen = (rank < jnp.maximum(1, jnp.floor(config.perturbed_share * images + 1e-4))) & mask
    which = jnp.broadcast_to(current, (count,))
    if config.remember:
        which = jax.random.randint(which_key, (count,), 0, current + 1)
    dtype = jnp.result_type(config.scale_low)
    scale = jax.random.uniform(scale_key, (count,), dtype, config.scale_low, config.scale_high)
    return (chosen * scale)[:, None] * jax.nn.one_hot(which, perturbations, dtype=dtype)


def _learning_rates(config: Config, current: jax.Array, batches: int) -> Float[Array, " batches"]:
    """The learning rate of every step of a round."""
    rates = jnp.broadcast_to(config.learning_rate, (batches,))
    if config.schedule == "constant":
        return rates
    progress = (current * batches + jnp.arange(batches)) / (config.rounds * batches)
    return rates * (0.5 * (1 + jnp.cos(jnp.pi * progress))).astype(rates.dtype)


def _optimizer(config: Config) -> optax.GradientTransformation:
    """Turns gradients of the parameters into directions."""
    return {
        "adam": optax.scale_by_adam,
        "amsgrad": scale_by_torch_amsgrad,
        "sgd": optax.identity,
    }[config.optimizer]()


def _ascent(config: Config) -> optax.GradientTransformation:
    """Turns gradients of L_in into steps of delta."""
    direction = {
        "sgd": optax.identity,
        "adam": optax.scale_by_adam,
        "normalized": optax.normalize_by_update_norm,
    }[config.ascent]()
    return optax.chain(direction, optax.scale(-1), optax.scale(config.ascent_rate))


def _augmented(batch: Batch, key: PRNGKey, config: Config) -> Batch:
    images = augment(batch.images, key, crop_padding=config.crop_padding, flip=config.flip)
    return batch._replace(images=images)


def _clipped(images: Float[Array, "n h w c"], config: Config) -> Float[Array, "n h w c"]:
    return jnp.clip(images, 0, 1) if config.clip_pixels else images


def _projected(delta: Perturbation, config: Config) -> Perturbation:
    """The nearest point of the l2 ball."""
    norm = optax.tree.norm(delta)
    return delta * jnp.minimum(1, config.radius / jnp.maximum(norm, jnp.finfo(delta.dtype).tiny))


def _cross_entropy(apply_fn: ApplyFn, variables: Variables, batch: Batch) -> Scalar:
    logits, _ = apply_fn(variables, batch.images, train=False)
    return mean_cross_entropy(logits, batch.labels, batch.mask)
