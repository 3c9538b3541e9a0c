"""I-BAU: adversarial unlearning of backdoors by implicit hypergradient.

A perturbation delta, shared by all images, is found by ascent; the parameters then descend on images of
which some carry it, along the total derivative of that loss with delta a function of the parameters:

    L_in(delta, theta)  = -mean_i CE(f_theta(x_i + delta), y_i) + lambda ||delta||_2^2
    L_out(delta, theta) =  mean_i CE(f_theta(x_i + m_i delta), y_i),      m_i = 0 for most images
    Phi(delta, theta)   =  delta - eta grad_delta L_in(delta, theta)

The network runs in evaluation mode throughout: running statistics stay as they are. That there may be
several kinds of perturbations is this package's addition, see ``jaxunlearn.ibau.perturbations``, and so is
distillation: images without a perturbation may be random mixtures of two, with y_i what the given model answers, but
that a suspected class is left out where neither image is of it.

Source: Zeng et al., "Adversarial unlearning of backdoors via implicit hypergradient", ICLR 2022,
arXiv:2110.03735; official code github.com/YiZeng623/I-BAU, defense.py and hypergrad.py.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxunlearn import _loop, _universal
from jaxunlearn._check import check_run
from jaxunlearn._distillation import mixtures
from jaxunlearn._implicit import Hypergradient, hypergradient, solver
from jaxunlearn._loop import Batch, Data, Execution, Method, Pass, Rows
from jaxunlearn._optimizers import direction, learning_rates
from jaxunlearn._training import begin
from jaxunlearn._tree import combine, partition, trainable_mask
from jaxunlearn._typing import (
    AnyImages,
    ApplyFn,
    Labels,
    PRNGKey,
    Probabilities,
    Round,
    Scalar,
    Variables,
)
from jaxunlearn._universal import Ascent, Kinds, Perturbations
from jaxunlearn.ibau import perturbations
from jaxunlearn.ibau.config import Config
from jaxunlearn.losses import as_integers, mean_cross_entropy
from jaxunlearn.pixels import augment


class State(NamedTuple):
    """Everything between two rounds; a pytree of arrays.

    Attributes:
      params: the trained half of the variables, None elsewhere.
      frozen: the other half.
      given: the trained half as it was given; None without distillation.
      optimizer: state of the parameters' optimizer.
      perturbations: those of every round so far; zeros for the rounds to come.
      weights: how often descent uses each of them.
      suspicion: how much each kind was suspected in the first round.
      radius: of the ball of the first round.
      round: rounds done.
      key: the run's key, the same in every round.
      config: the settings; its numbers are leaves.
    """

    params: PyTree
    frozen: PyTree
    given: PyTree | None
    optimizer: PyTree
    perturbations: Float[Array, "rounds kinds h w c"]
    weights: Float[Array, "rounds kinds"]
    suspicion: Float[Array, " kinds"]
    radius: Scalar
    round: Round
    key: PRNGKey
    config: Config


class RoundStats(NamedTuple):
    """What one round did.

    Attributes:
      inner_loss: mean over the steps of L_in, with the model's own answers as labels.
      outer_loss: mean over the steps of L_out.
      radius: the largest l2 norm of a perturbation, in pixel units.
      success: of every kind, the share of images that it led where it should at the end of the ascent.
      direct_norm: mean l2 norm of the direct part of the hypergradient.
      implicit_norm: mean l2 norm of its implicit part.
    """

    inner_loss: Scalar
    outer_loss: Scalar
    radius: Scalar
    success: Float[Array, " kinds"]
    direct_norm: Scalar
    implicit_norm: Scalar


class Carried(NamedTuple):
    """The perturbation that every image of a batch carries: ``scale * perturbations[round, kind]``."""

    scale: Float[Array, " n"]
    round: Int[Array, " n"]
    kind: Kinds


def unlearn(
    apply_fn: ApplyFn,
    variables: Variables,
    images: AnyImages,
    labels: Labels,
    config: Config,
    key: PRNGKey,
    *,
    execution: Execution | None = None,
) -> tuple[Variables, RoundStats]:
    """Removes backdoors from a classifier with a few clean images.

    Args:
      apply_fn: the network, ``apply_fn(variables, images, train=False) -> (logits, aux)``.
      variables: of the network, a pytree of arrays, its mappings dicts; of one with a ``"params"`` entry only that
        entry changes.
      images: clean images, floating, NHWC, in [0, 1].
      labels: their true classes, integers.
      config: what to compute; ``PRESETS["default"]`` for a start.
      key: of all random choices.
      execution: how to compute it; under a surrounding ``jit`` give ``Execution(loop="scan")``.

    Returns:
      Cleaned variables of the same structure, shapes and dtypes, and the statistics, stacked by round.

    Raises:
      ValueError: if the images or labels do not have the shape, dtype and range described.
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
    execution = execution or Execution()
    data = Data(images, labels).for_loop(execution)
    return _loop.run(make_method(apply_fn, execution), variables, data, config, key)


def make_method(apply_fn: ApplyFn, execution: Execution) -> Method:
    """I-BAU for one network as ``init``, ``step`` and ``finish``; equal networks share compiled programs."""
    rounds = functools.partial(_round, *_passes(apply_fn), execution)
    return Method(functools.partial(init, apply_fn), rounds, finish)


@functools.lru_cache(maxsize=16)
def _passes(apply_fn: ApplyFn) -> tuple[Pass, Pass]:
    return Pass(functools.partial(_ascend, apply_fn)), Pass(functools.partial(_descend, apply_fn))


def init(apply_fn: ApplyFn, variables: Variables, data: Data, config: Config, key: PRNGKey) -> State:
    """The state before the first round.

    Raises:
      ValueError: if the images or labels do not have the shape, dtype and range described in ``unlearn``, the config is
        of another method, or the key is none.
    """
    check_run(config, Config, key)
    _, params, frozen, classes, dtype, _ = begin(apply_fn, variables, *data, config.crop_padding)
    kinds = perturbations.kinds_of(config, classes)
    return State(
        params,
        frozen,
        params if config.distillation else None,
        direction(config.optimizer).init(params),
        jnp.zeros((config.rounds, kinds, *data.images.shape[1:]), dtype),
        jnp.zeros((config.rounds, kinds), dtype),
        jnp.full(kinds, 1 / kinds, dtype),
        jnp.asarray(jnp.inf, dtype),
        _loop.NO_ROUND,
        key,
        jax.tree.map(lambda number: jnp.asarray(number, dtype), config),
    )


def finish(state: State) -> Variables:
    """The variables of a state."""
    return combine(state.params, state.frozen)


def outer_loss(
    apply_fn: ApplyFn,
    variables: Variables,
    delta: Perturbations,
    batch: Batch,
    scale: Float[Array, " n"],
    kinds: Kinds,
    config: Config,
) -> Scalar:
    """L_out = mean_i CE(f(x_i + s_i delta_{k_i}), y_i), in nats: most images carry nothing (s_i = 0).

    Args:
      apply_fn: the network.
      variables: of the network.
      delta: the perturbations, in pixel units.
      batch: clean images with their true labels.
      scale: s, of every image.
      kinds: k, the perturbation that every image carries.
      config: whether to clip pixels to [0, 1].

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)), {})
      >>> batch = Batch(jnp.zeros((2, 4, 4, 3)), jnp.array([0, 1]), jnp.ones(2, bool))
      >>> delta = jnp.ones((1, 4, 4, 3)) * jnp.array([1.0, 0.0, 0.0])  # brightens the first channel
      >>> float(outer_loss(apply_fn, {}, delta, batch, jnp.array([0.0, 9.0]), jnp.array([0, 0]), Config()))
      5.0494...
    """
    images = batch.images + scale[:, None, None, None] * _universal.carried(delta, kinds)
    logits, _ = apply_fn(variables, perturbations.clipped(images, config), train=False)
    return mean_cross_entropy(logits, batch.labels, batch.mask)


def unlearning_hypergradient(
    apply_fn: ApplyFn,
    variables: Variables,
    delta: Perturbations,
    inner: tuple[Batch, Kinds],
    outer: tuple[Batch, Float[Array, " n"], Kinds],
    config: Config,
) -> Hypergradient:
    """L_out, its total derivative in the trained variables, and the direct part of that.

    grad_theta L_out + (dPhi/d theta)^T v with v = solve((I - dPhi/d delta)^T, grad_delta L_out); see
    ``jaxunlearn.hypergradient``.

    Args:
      apply_fn: the network.
      variables: of the network.
      delta: the perturbations, constants.
      inner: the batch of L_in inside Phi with its true labels, and the kind that each of its images carries.
      outer: the batch of L_out, and the scale and kind of what each of its images carries.
      config: eta, lambda and the solver.

    Returns:
      The loss; gradients have the structure of the variables, with None for what is not trained.

    Source: Zeng et al., ICLR 2022, equation 4; official code, hypergrad.py, ``fixed_point``.

    Example:
      >>> apply_fn = lambda params, x, *, train: (jnp.tanh(x.mean((1, 2))) @ params["w"], {})
      >>> batch = Batch(jnp.full((2, 4, 4, 3), 0.5), jnp.array([0, 1]), jnp.ones(2, bool))
      >>> kinds, delta = jnp.zeros(2, int), jnp.full((1, 4, 4, 3), 0.1)
      >>> outer = (batch, jnp.array([0.0, 1.0]), kinds)
      >>> variables = {"w": jnp.eye(3)}
      >>> result = unlearning_hypergradient(apply_fn, variables, delta, (batch, kinds), outer, Config())
      >>> jax.tree.map(jnp.shape, result.gradient)
      {'w': (3, 3)}
    """
    params, frozen = partition(variables, trainable_mask(variables))

    def fixed_point_fun(d: Perturbations, theta: PyTree) -> Perturbations:
        def loss_fn(e: Perturbations) -> Scalar:
            return perturbations.inner_loss(apply_fn, combine(theta, frozen), e, *inner, config)[0]

        return d - config.fixed_point_step * jax.grad(loss_fn)(d)

    def outer_fun(d: Perturbations, theta: PyTree) -> Scalar:
        return outer_loss(apply_fn, combine(theta, frozen), d, *outer, config)

    steps = config.solver_steps
    solve = solver(config.solver, steps, damping=config.damping) if steps else None
    return hypergradient(outer_fun, fixed_point_fun, delta, params, solve)


def _round(
    ascend: Pass, descend: Pass, execution: Execution, state: State, data: Data
) -> tuple[State, RoundStats]:
    """One round: a pass of ascent from zero, then a pass of descent with what it found."""
    config, count, now = state.config, len(data.labels), state.round
    order_key, ascent_key, descent_key = jax.random.split(jax.random.fold_in(state.key, now), 3)
    once_key = jax.random.fold_in(state.key, config.rounds + 1)  # that of no round
    order = {"never": None, "once": once_key, "round": order_key}[config.shuffle]
    rows = _loop.batch_rows(count, config.batch_size, order, config.least_steps)
    batches = len(rows.members)

    limit = jnp.minimum(config.radius, state.radius)
    shares = _universal.trial_shares(state.suspicion)
    ascent, inner_losses = ascend(
        (state.params, state.frozen, shares, limit, config),
        perturbations.start(config, state.perturbations.shape[1:], state.perturbations.dtype),
        (rows, jax.random.split(ascent_key, batches)),
        data,
        execution,
    )
    first = now == 0
    suspicion = jnp.where(first, _universal.suspect(ascent, config.focus), state.suspicion)
    radius = jnp.where(first, ascent.radius, state.radius)
    found = state.perturbations.at[now].set(ascent.delta)
    weights = state.weights.at[now].set(suspicion * ascent.success + 1e-9)
    if not config.remember:
        weights = weights * (jnp.arange(config.rounds) == now)[:, None]

    keys = jax.random.split(descent_key, (batches, 2))
    inner_rows = _inner_rows(rows, keys[:, 0], count, config)
    rates = learning_rates(config.schedule, config.learning_rate, now, config.rounds, batches)
    (params, optimizer), (outer_losses, direct_norms, implicit_norms) = descend(
        (state.frozen, state.given, found, weights, shares, suspicion, now, config),
        (state.params, state.optimizer),
        (rows, inner_rows, keys[:, 1], rates),
        data,
        execution,
    )
    new = state._replace(
        params=params,
        optimizer=optimizer,
        perturbations=found,
        weights=weights,
        suspicion=suspicion,
        radius=radius,
        round=now + 1,
    )
    largest = jnp.sqrt(jnp.max(jnp.sum(ascent.delta**2, axis=(1, 2, 3))))
    means = (jnp.mean(direct_norms), jnp.mean(implicit_norms))
    return new, RoundStats(jnp.mean(inner_losses), jnp.mean(outer_losses), largest, ascent.success, *means)


def _inner_rows(rows: Rows, keys: jax.Array, count: int, config: Config) -> Rows:
    """The batch of L_in for every step of descent."""
    if config.inner_batch == "first":
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[0], leaf.shape), rows)
    size = rows.members.shape[1]
    draw = jax.vmap(lambda key: jax.random.choice(key, count, (size,), replace=False))
    return Rows(draw(keys), jnp.ones_like(rows.mask))


def _ascend(
    apply_fn: ApplyFn, consts: PyTree, ascent: Ascent, x: tuple[Batch, PRNGKey]
) -> tuple[Ascent, Scalar]:
    params, frozen, shares, limit, config = consts
    augment_key, kinds_key = jax.random.split(x[1])
    batch = _augmented(x[0], augment_key, config)
    variables = combine(params, frozen)
    return perturbations.ascent_step(apply_fn, variables, ascent, batch, shares, limit, kinds_key, config)


def _descend(
    apply_fn: ApplyFn, consts: PyTree, carry: PyTree, x: tuple[Batch, Batch, PRNGKey, Scalar]
) -> tuple[PyTree, tuple[Scalar, Scalar, Scalar]]:
    frozen, given, found, weights, shares, suspicion, now, config = consts
    params, optimizer = carry
    outer, inner, key, rate = x
    carried_key, kinds_key, outer_key, inner_key, mixing_key = jax.random.split(key, 5)
    outer, inner = _augmented(outer, outer_key, config), _augmented(inner, inner_key, config)
    carried = _carry(carried_key, outer, weights, config)
    if config.distillation:
        withheld = _universal.suspects(suspicion) if config.withhold else False
        mixed = mixtures(
            apply_fn, combine(given, frozen), outer.images, outer.labels, mixing_key, withheld=withheld
        )
        outer = _distilled(outer, mixed, carried.scale == 0)
    # Earlier perturbations are constants; only the current ones are functions of the parameters.
    current = carried.round == now
    constant = jnp.where(current, 0, carried.scale)[:, None, None, None] * found[carried.round, carried.kind]
    result = unlearning_hypergradient(
        apply_fn,
        combine(params, frozen),
        found[now],
        (inner, _universal.draw_kinds(kinds_key, shares, inner.labels)),
        (outer._replace(images=outer.images + constant), jnp.where(current, carried.scale, 0), carried.kind),
        config,
    )
    directions, optimizer = direction(config.optimizer).update(result.gradient, optimizer, params)
    params = jax.tree.map(lambda p, d: p - rate * d, params, directions)
    norms = (
        optax.tree.norm(result.direct),
        optax.tree.norm(optax.tree.sub(result.gradient, result.direct)),
    )
    return (params, optimizer), (result.value, *norms)


def _carry(key: PRNGKey, batch: Batch, weights: Float[Array, "rounds kinds"], config: Config) -> Carried:
    """Draws what every image of a batch carries; nothing (a scale of zero) for most."""
    chosen_key, which_key, scale_key = jax.random.split(key, 3)
    count, (_, kinds) = len(batch.mask), weights.shape
    # Ranks of a random order in which the padding comes last.
    rank = jnp.argsort(jnp.argsort(jnp.where(batch.mask, jax.random.uniform(chosen_key, (count,)), 2.0)))
    wanted = config.perturbed_share * jnp.sum(batch.mask)
    most = jnp.maximum(1, jnp.floor(wanted + 1e-4))  # 0.01 * 100 must make 1
    odds = jnp.broadcast_to(jnp.log(weights), (count, *weights.shape))
    if kinds > 1:
        own = jax.nn.one_hot(batch.labels, kinds, dtype=bool)[:, None]
        odds = jnp.where(own, -jnp.inf, odds)
    which = jax.random.categorical(which_key, odds.reshape(count, -1), axis=1)
    scale = jax.random.uniform(scale_key, (count,), weights.dtype, config.scale_low, config.scale_high)
    return Carried(scale * ((rank < most) & batch.mask), which // kinds, which % kinds)


def _distilled(batch: Batch, mixed: tuple[jax.Array, Probabilities], bare: Bool[Array, " n"]) -> Batch:
    """The batch with mixtures and the given model's answers where images carry nothing."""
    images, answers = mixed
    true = jax.nn.one_hot(as_integers(batch.labels), answers.shape[1], dtype=answers.dtype)
    return batch._replace(
        images=jnp.where(bare[:, None, None, None], images, batch.images),
        labels=jnp.where(bare[:, None], answers, true),
    )


def _augmented(batch: Batch, key: PRNGKey, config: Config) -> Batch:
    images = augment(batch.images, key, crop_padding=config.crop_padding, flip=config.flip)
    return batch._replace(images=images)
