"""Fine-tuning on clean images: the baseline that a method must beat, plain or sharpness-aware.

Plain: SGD (or AdamW) on the cross-entropy in training mode. Sharpness-aware: the gradient is taken at

    theta + rho |theta|^2 g / || |theta| g ||,    g the gradient at theta,

where the loss around theta is highest to first order, as far away as each parameter is large. Running statistics
are those of the pass at theta.

Sources: Foret et al., Sharpness-Aware Minimization, ICLR 2021; Kwon et al., ASAM, ICML 2021; Zhu et al., Enhancing
Fine-Tuning based Backdoor Defense with Sharpness-Aware Minimization, ICCV 2023.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxunlearn import _loop
from jaxunlearn._check import check_run
from jaxunlearn._loop import Batch, Data, Execution, Method, Pass
from jaxunlearn._optimizers import adamw_step, learning_rates, momentum_step
from jaxunlearn._training import begin, forward_of_halves
from jaxunlearn._tree import combine
from jaxunlearn._typing import AnyImages, ApplyFn, Labels, Number, PRNGKey, Round, Scalar, Variables
from jaxunlearn.finetune.config import Config
from jaxunlearn.losses import masked_mean
from jaxunlearn.pixels import augment

_MEMORIES = {"adamw": optax.scale_by_adam().init, "sgd": optax.tree.zeros_like}
_STEPS: dict[str, Callable[..., tuple[PyTree, PyTree]]] = {"adamw": adamw_step, "sgd": momentum_step}


class State(NamedTuple):
    """Everything between two rounds; a pytree of arrays.

    Attributes:
      params: the trained half of the variables, None elsewhere.
      rest: the other half; running statistics move.
      memory: of the optimizer: the velocity of ``sgd``, the moments of ``adamw``.
      round: rounds done.
      key: the run's key, the same in every round.
      config: the settings; its numbers are leaves.
    """

    params: PyTree
    rest: PyTree
    memory: PyTree
    round: Round
    key: PRNGKey
    config: Config


class RoundStats(NamedTuple):
    """What one round did.

    Attributes:
      loss: mean over the steps of the loss, before each step.
    """

    loss: Scalar


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
    """Fine-tunes a classifier on a few clean images.

    Args:
      apply_fn: the network, ``apply_fn(variables, images, train=True) -> (logits, aux)``; new running
        statistics are taken from ``aux["batch_stats"]``. If it accepts ``rngs`` it gets a key for dropout.
      variables: of the network, a pytree of arrays, its mappings dicts; of one with a ``"params"`` entry only that
        entry is trained.
      images: clean images, floating, NHWC, in [0, 1].
      labels: their true classes, integers.
      config: what to compute.
      key: of all random choices.
      execution: how to compute it; under a surrounding ``jit`` give ``Execution(loop="scan")``.

    Returns:
      Variables of the same structure, shapes and dtypes, and the statistics, stacked by round.

    Raises:
      ValueError: if the images or labels do not have the shape, dtype and range described.
      NonFiniteError: if a round gives NaN or infinite values.

    Example:
      >>> def apply_fn(params, x, *, train):
      ...     return x.mean((1, 2)) @ params["w"], {}
      >>> params = {"w": jnp.eye(3)}
      >>> x = jax.random.uniform(jax.random.key(0), (8, 4, 4, 3))
      >>> y = jnp.arange(8) % 3
      >>> tuned, stats = unlearn(apply_fn, params, x, y, Config(rounds=2), jax.random.key(1))
      >>> bool(stats.loss[1] < stats.loss[0])
      True
    """
    execution = execution or Execution()
    data = Data(images, labels).for_loop(execution)
    return _loop.run(make_method(apply_fn, execution), variables, data, config, key)


def make_method(apply_fn: ApplyFn, execution: Execution) -> Method:
    """Fine-tuning of one network as ``init``, ``step`` and ``finish``; equal networks share compiled programs."""
    rounds = functools.partial(_round, _epoch(apply_fn), execution)
    return Method(functools.partial(init, apply_fn), rounds, finish)


@functools.lru_cache(maxsize=16)
def _epoch(apply_fn: ApplyFn) -> Pass:
    return Pass(functools.partial(_train, apply_fn))


def init(apply_fn: ApplyFn, variables: Variables, data: Data, config: Config, key: PRNGKey) -> State:
    """The state before the first round.

    Raises:
      ValueError: if the images or labels do not have the shape, dtype and range described in ``unlearn``, the config is
        of another method, or the key is none.
    """
    check_run(config, Config, key)
    begun = begin(apply_fn, variables, *data, config.crop_padding)
    return State(
        begun.params,
        begun.rest,
        _MEMORIES[config.optimizer](begun.params),
        _loop.NO_ROUND,
        key,
        jax.tree.map(lambda number: jnp.asarray(number, begun.dtype), config),
    )


def finish(state: State) -> Variables:
    """The variables of a state."""
    return combine(state.params, state.rest)


def sharpest(params: PyTree, gradient: PyTree, radius: Number) -> PyTree:
    """Where the loss around the parameters is highest to first order: theta + rho |theta|^2 g / || |theta| g ||.

    Example:
      >>> sharpest({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([3.0, 2.0])}, 0.5)["w"].tolist()
      [1.2999999523162842, 2.799999952316284]
    """
    scaled = jax.tree.map(lambda p, g: jnp.abs(p) * g, params, gradient)
    length = radius / (optax.tree.norm(scaled) + 1e-12)
    return jax.tree.map(lambda p, s: p + length * jnp.abs(p) * s, params, scaled)


def _round(epoch: Pass, execution: Execution, state: State, data: Data) -> tuple[State, RoundStats]:
    config, now = state.config, state.round
    order_key, steps_key = jax.random.split(jax.random.fold_in(state.key, now))
    rows = _loop.batch_rows(len(data.labels), config.batch_size, order_key)
    steps = len(rows.members)
    rates = learning_rates(config.schedule, config.learning_rate, now, config.rounds, steps)
    carry, losses = epoch(
        config,
        (state.params, state.rest, state.memory),
        (rows, jax.random.split(steps_key, steps), rates),
        data,
        execution,
    )
    params, rest, memory = carry
    new = state._replace(params=params, rest=rest, memory=memory, round=now + 1)
    return new, RoundStats(jnp.mean(losses))


def _train(
    apply_fn: ApplyFn, config: Config, carry: PyTree, x: tuple[Batch, PRNGKey, Scalar]
) -> tuple[PyTree, Scalar]:
    """One step of PyTorch's SGD or AdamW."""
    params, rest, memory = carry
    batch, key, rate = x
    augment_key, dropout_key = jax.random.split(key)
    images = augment(batch.images, augment_key, crop_padding=config.crop_padding, flip=config.flip)

    def loss_fn(params: PyTree) -> tuple[Scalar, PyTree]:
        logits, moved = forward_of_halves(apply_fn, params, rest, images, dropout_key)
        targets = optax.smooth_labels(jax.nn.one_hot(batch.labels, logits.shape[1]), config.label_smoothing)
        losses = optax.softmax_cross_entropy(logits, targets)
        return masked_mean(losses, batch.mask), moved

    (loss, moved), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
    if config.sharpness_aware:
        gradient, _ = jax.grad(loss_fn, has_aux=True)(sharpest(params, gradient, config.sharpness_radius))
    params, memory = _STEPS[config.optimizer](
        params,
        memory,
        gradient,
        rate=rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )
    return (params, moved, memory), loss
