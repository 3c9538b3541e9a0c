"""ULRL: unlearn to find the neurons that a backdoor uses, relearn without them.

From the network as it came, theta_0, a few epochs ascend on clean images until most answers are wrong. The
neurons whose weights moved farthest on the way are suspicious; of the last layer, those are classes. Then the
network goes back to theta_0, suspicious neurons are drawn anew, and further epochs descend on

    L = mean_i CE(f_theta(x_i), y_i) + alpha sum_{c in S} cos(w_c, w0_c).

Both phases run in training mode, as in the official code: batch statistics move, and dropout is drawn by a
network that accepts ``rngs`` (``ModelSpec.apply`` does). Its mixed precision is left away. Additions of this
package: suspicious neurons of hidden layers, relearning in evaluation mode, and a learning rate chosen by
the loss of trial epochs on the clean images.

A round is an epoch. The first ``unlearning_rounds`` of them ascend, and those after the accuracy threshold
leave everything as it is: what has to be known in advance is how many there are at most. The last of
them ends with the choice of neurons. Until the first epoch of relearning, ``finish`` gives theta_0.

Source: Min et al., "Unlearn to relearn backdoors: deep neural network (DNN) self-purification",
arXiv:2405.14781v2.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxunlearn import _loop
from jaxunlearn._check import InputError, check_run
from jaxunlearn._loop import Batch, Data, Execution, Method, Pass
from jaxunlearn._optimizers import clipped, momentum_step
from jaxunlearn._runtime import Compiled
from jaxunlearn._training import begin, training_forward
from jaxunlearn._tree import combine, head_kernel, named_leaves, partition, trainable_mask
from jaxunlearn._typing import AnyImages, ApplyFn, Labels, Number, PRNGKey, Round, Scalar, Variables
from jaxunlearn.losses import mean_cross_entropy
from jaxunlearn.pixels import augment
from jaxunlearn.ulrl import neurons
from jaxunlearn.ulrl.config import Config
from jaxunlearn.ulrl.neurons import Kernel

Epoch: TypeAlias = tuple[PyTree, Scalar, Scalar]
"""What an epoch leaves (``State.trained``), its mean loss, and its accuracy."""


class State(NamedTuple):
    """Everything between two rounds; a pytree of arrays.

    Attributes:
      params: the trained half of the variables, None elsewhere.
      rest: the other half; running statistics move.
      velocity: the momentum of the parameters.
      original: the variables as they came.
      scores: how far unlearning moved every neuron of the layers looked at; zeros before that is known.
      suspects: which of them are drawn anew.
      stopped: whether the latest epoch has reached the accuracy at which unlearning ends.
      loss: of the latest epoch.
      accuracy: of the latest epoch.
      round: rounds done.
      key: the run's key, the same in every round.
      config: the settings; its numbers are leaves. The learning rate is the chosen one once there is a choice.
    """

    params: PyTree
    rest: PyTree
    velocity: PyTree
    original: Variables
    scores: dict[str, Float[Array, " _"]]
    suspects: dict[str, Bool[Array, " _"]]
    stopped: Bool[Array, ""]
    loss: Scalar
    accuracy: Scalar
    round: Round
    key: PRNGKey
    config: Config

    @property
    def trained(self) -> tuple[PyTree, PyTree, PyTree]:
        """What the steps of an epoch carry."""
        return self.params, self.rest, self.velocity


class RoundStats(NamedTuple):
    """What one round did, and what is known after it.

    Attributes:
      loss: mean cross-entropy during the epoch; of the latest epoch, if unlearning has stopped.
      accuracy: during the epoch, every image judged before the step that it takes part in.
      rate: the learning rate of relearning, as far as it is known.
      suspect: the class that moved farthest, if it is an outlier; -1 while or if there is none.
      z: its z-score, outlier or not; 0 before it is known.
      found: the number of neurons drawn anew, in all layers.
      degenerate: whether the classes' median absolute deviation was zero; see ``mad_outliers``.
    """

    loss: Scalar
    accuracy: Scalar
    rate: Scalar
    suspect: Int[Array, ""]
    z: Scalar
    found: Int[Array, ""]
    degenerate: Bool[Array, ""]


class Phase(NamedTuple):
    """The numbers in which steps of unlearning and of relearning differ.

    Attributes:
      sign: of the cross-entropy: -1 ascends.
      rate: the learning rate.
      momentum: share of the velocity that stays.
      weight_decay: coefficient of the parameters in the direction.
      clip_norm: longest gradient.
      penalty: alpha.
    """

    sign: Number
    rate: Number
    momentum: Number
    weight_decay: Number
    clip_norm: Number
    penalty: Number


class Step(NamedTuple):
    """What a step gives.

    Attributes:
      variables: the new ones.
      velocity: the new one.
      loss: sum over the images of the cross-entropy, before the step.
      hits: images answered right, before the step.
    """

    variables: Variables
    velocity: PyTree
    loss: Scalar
    hits: Scalar


def unlearn(
    apply_fn: ApplyFn,
    variables: Variables,
    images: AnyImages,
    labels: Labels,
    config: Config,
    key: PRNGKey,
    *,
    head: str,
    execution: Execution | None = None,
) -> tuple[Variables, RoundStats]:
    """Removes backdoors from a classifier with a few clean images.

    Args:
      apply_fn: the network, ``apply_fn(variables, images, train=True) -> (logits, aux)``; new running
        statistics are taken from ``aux["batch_stats"]``. If it accepts ``rngs`` it gets a key for dropout.
      variables: of the network, a pytree of arrays, its mappings dicts; of one with a ``"params"`` entry only that
        entry is trained.
      images: clean images, floating, NHWC, in [0, 1].
      labels: their true classes, integers.
      config: what to compute; ``PRESETS["default"]`` for a start.
      key: of all random choices.
      head: path of the last linear layer (``ModelSpec.head``); see ``head_kernel``.
      execution: how to compute it; under a surrounding ``jit`` give ``Execution(loop="scan")``.

    Returns:
      Cleaned variables of the same structure, shapes and dtypes, and the statistics, stacked by round.

    Raises:
      ValueError: if the images or labels do not have the shape, dtype and range described.
      InputError: if the head names no linear layer.
      NonFiniteError: if a round gives NaN or infinite values.

    Example:
      >>> def apply_fn(params, x, *, train):
      ...     return x.mean((1, 2)) @ params["w"], {}
      >>> params = {"w": jnp.eye(3)}
      >>> x = jax.random.uniform(jax.random.key(0), (8, 4, 4, 3))
      >>> y = jnp.arange(8) % 3
      >>> config = Config(rounds=3, unlearning_rounds=1)
      >>> cleaned, stats = unlearn(apply_fn, params, x, y, config, jax.random.key(1), head="w")
      >>> stats.loss.shape
      (3,)
    """
    execution = execution or Execution()
    data = Data(images, labels).for_loop(execution)
    return _loop.run(make_method(apply_fn, execution, head=head), variables, data, config, key)


def make_method(apply_fn: ApplyFn, execution: Execution, *, head: str) -> Method:
    """ULRL for one network as ``init``, ``step`` and ``finish``; equal networks share compiled programs."""
    rounds = functools.partial(_round, head, *_programs(apply_fn, head), execution)
    return Method(functools.partial(init, apply_fn, head), rounds, finish)


@functools.lru_cache(maxsize=16)
def _programs(apply_fn: ApplyFn, head: str) -> tuple[dict[str, Pass], Compiled]:
    epochs = {mode: Pass(functools.partial(_train, apply_fn, mode)) for mode in ("train", "eval")}
    return epochs, Compiled(functools.partial(_choose, head))


def init(
    apply_fn: ApplyFn, head: str, variables: Variables, data: Data, config: Config, key: PRNGKey
) -> State:
    """The state before the first round.

    Raises:
      ValueError: if the images or labels do not have the shape, dtype and range described in ``unlearn``, the config is
        of another method, or the key is none.
      InputError: if the head names no linear layer with a column for every class, or no hidden layer is found where
        such are asked for.
    """
    check_run(config, Config, key)
    variables, params, rest, classes, dtype, _ = begin(apply_fn, variables, *data, config.crop_padding)
    head_kernel(variables, head, classes)
    kernels = neurons.layer_kernels(variables, head, config.layers)
    if config.layers != "head" and len(kernels) == 1:
        raise InputError(
            f"layers={config.layers!r} asks for hidden layers and only the last one has a leaf that is called kernel; "
            'name them so, their last axis counting the neurons, or set layers="head".'
        )
    return State(
        params,
        rest,
        optax.tree.zeros_like(params),
        variables,
        {name: jnp.zeros(kernel.shape[-1], kernel.dtype) for name, kernel in kernels.items()},
        {name: jnp.zeros(kernel.shape[-1], bool) for name, kernel in kernels.items()},
        jnp.asarray(False),
        jnp.zeros((), dtype),
        jnp.zeros((), dtype),
        _loop.NO_ROUND,
        key,
        jax.tree.map(lambda number: jnp.asarray(number, dtype), config),
    )


def finish(state: State) -> Variables:
    """The variables of a state: as they came, until relearning has begun."""
    relearned = state.round > state.config.unlearning_rounds
    return _loop.where(relearned, lambda: combine(state.params, state.rest), lambda: state.original)


def phase_of(config: Config, now: Round) -> Phase:
    """The numbers of round ``now``, from 0.

    The ascent's rate drops to a tenth every ``drop_every`` epochs; relearning follows half a cosine.

    Example:
      >>> [round(float(phase_of(Config(), jnp.asarray(now)).rate), 4) for now in (0, 10, 20, 30)]
      [0.01, 0.001, 0.005, 0.0025]
    """
    now = jnp.asarray(now)
    drops = now // config.drop_every
    unlearning = Phase(
        -1, config.unlearning_rate * 0.1**drops, config.momentum, config.weight_decay, config.clip_norm, 0
    )
    progress = (now - config.unlearning_rounds) / (config.rounds - config.unlearning_rounds)
    factor = 0.5 * (1 + jnp.cos(jnp.pi * progress)) if config.schedule == "cosine" else 1
    relearning = Phase(1, config.learning_rate * factor, config.momentum, 0, jnp.inf, config.penalty)
    dtype = jnp.result_type(config.learning_rate)
    return jax.tree.map(
        lambda first, second: jnp.where(now < config.unlearning_rounds, first, second).astype(dtype),
        unlearning,
        relearning,
    )


def training_step(
    apply_fn: ApplyFn,
    variables: Variables,
    velocity: PyTree,
    batch: Batch,
    phase: Phase,
    originals: Mapping[str, Kernel],
    suspects: Mapping[str, Bool[Array, " _"]],
    key: PRNGKey,
    *,
    mode: str = "train",
) -> Step:
    """One step of PyTorch's SGD on sign * CE + penalty * sum of cosines.

    g <- clipped gradient; velocity <- momentum velocity + g + weight_decay theta;
    theta <- theta - rate velocity.

    Args:
      apply_fn: the network.
      variables: of the network.
      velocity: of its trained half, None elsewhere.
      batch: images with their true labels.
      phase: the numbers.
      originals: kernels before unlearning, by path.
      suspects: their suspicious neurons, by path.
      key: of dropout.
      mode: of the network, ``train`` or ``eval``.

    Example:
      >>> apply_fn = lambda params, x, *, train: (x.mean((1, 2)) @ params["w"], {})
      >>> batch = Batch(jnp.ones((1, 2, 2, 2)), jnp.array([0]), jnp.ones(1, bool))
      >>> params = {"w": jnp.zeros((2, 2))}
      >>> ascent = Phase(-1, 1.0, 0.9, 0.0, jnp.inf, 0.0)
      >>> step = training_step(apply_fn, params, params, batch, ascent, {}, {}, jax.random.key(0))
      >>> step.variables["w"].tolist()
      [[-0.5, 0.5], [-0.5, 0.5]]
    """
    params, rest = partition(variables, mask := trainable_mask(variables))

    def loss_fn(params: PyTree) -> tuple[Scalar, tuple[Scalar, jax.Array, Variables]]:
        now = combine(params, rest)
        if mode == "train":
            logits, moved = training_forward(apply_fn, now, batch.images, key)
        else:
            logits, moved = apply_fn(now, batch.images, train=False)[0], now
        loss = mean_cross_entropy(logits, batch.labels, batch.mask)
        penalty = neurons.cosine_penalty(named_leaves(params), originals, suspects)
        return phase.sign * loss + phase.penalty * penalty, (loss, logits, partition(moved, mask)[1])

    gradient, (loss, logits, rest) = jax.grad(loss_fn, has_aux=True)(params)
    params, velocity = momentum_step(
        params,
        velocity,
        clipped(gradient, phase.clip_norm),
        rate=phase.rate,
        momentum=phase.momentum,
        weight_decay=phase.weight_decay,
    )
    hits = jnp.sum((jnp.argmax(logits, axis=1) == batch.labels) & batch.mask)
    return Step(combine(params, rest), velocity, loss * jnp.sum(batch.mask), hits.astype(loss.dtype))


def _round(
    head: str,
    epochs: Mapping[str, Pass],
    choose: Compiled,
    execution: Execution,
    state: State,
    data: Data,
) -> tuple[State, RoundStats]:
    """One epoch of either phase; the last one of unlearning ends with the choice of neurons and of a rate."""
    config, count, now = state.config, len(data.labels), state.round
    unlearning = now < config.unlearning_rounds
    order_key, steps_key, draw_key = jax.random.split(jax.random.fold_in(state.key, now), 3)

    rows = _loop.batch_rows(count, config.batch_size, order_key)
    xs = (rows, jax.random.split(steps_key, len(rows.members)))
    originals = neurons.layer_kernels(state.original, head, config.layers)

    def train(mode: str, now: Round, config: Config, suspects: PyTree, start: PyTree) -> Epoch:
        consts = (originals, suspects, phase_of(config, now), config)
        carry, (losses, hits) = epochs[mode](consts, start, xs, data, execution)
        return carry, jnp.sum(losses) / count, jnp.sum(hits) / count

    def train_as(mode: str) -> Epoch:
        return train(mode, now, config, state.suspects, state.trained)

    def train_now() -> Epoch:
        if config.relearning == "train":
            return train_as("train")  # one program for both phases
        return _loop.where(unlearning, lambda: train_as("train"), lambda: train_as("eval"))

    def turn() -> tuple[PyTree, PyTree, PyTree, Scalar]:
        start, scores, suspects = choose(
            trained[0], state.original, jnp.asarray(data.labels), draw_key, config
        )

        def trial(rate: Scalar) -> Scalar:
            return train(config.relearning, now + 1, _with_rate(config, rate), suspects, start)[1]

        return start, scores, suspects, _best_rate(trial, config)

    trained, loss, accuracy = _loop.where(
        unlearning & state.stopped, lambda: (state.trained, state.loss, state.accuracy), train_now
    )
    trained, scores, suspects, rate = _loop.where(
        now == config.unlearning_rounds - 1,
        turn,
        lambda: (trained, state.scores, state.suspects, config.learning_rate),
    )
    new = state._replace(
        params=trained[0],
        rest=trained[1],
        velocity=trained[2],
        scores=scores,
        suspects=suspects,
        stopped=accuracy <= config.stop_accuracy,
        loss=loss,
        accuracy=accuracy,
        round=now + 1,
        config=_with_rate(config, rate),
    )
    return new, _statistics(head, new)


def _train(
    apply_fn: ApplyFn, mode: str, consts: PyTree, carry: PyTree, x: tuple[Batch, PRNGKey]
) -> tuple[PyTree, tuple[Scalar, Scalar]]:
    originals, suspects, phase, config = consts
    params, rest, velocity = carry
    augment_key, dropout_key = jax.random.split(x[1])
    images = augment(x[0].images, augment_key, crop_padding=config.crop_padding, flip=config.flip)
    variables = combine(params, rest)
    batch = x[0]._replace(images=images)
    step = training_step(
        apply_fn, variables, velocity, batch, phase, originals, suspects, dropout_key, mode=mode
    )
    halves = partition(step.variables, trainable_mask(variables))
    return (*halves, step.velocity), (step.loss, step.hits)


def _choose(
    head: str, unlearned: PyTree, original: Variables, labels: Labels, key: PRNGKey, config: Config
) -> tuple[PyTree, dict[str, jax.Array], dict[str, jax.Array]]:
    """What relearning starts from, the scores of the neurons, and which are suspicious."""
    before, after = neurons.layer_kernels(original, head, config.layers), named_leaves(unlearned)
    scores = {name: neurons.neuron_scores(kernel, after[name]) for name, kernel in before.items()}
    suspects = {
        name: neurons.suspicious(
            score, neurons.mad_outliers(score, config.threshold).outlying, config.most, config.order
        )
        for name, score in scores.items()
    }
    last = head_kernel(original, head)
    shares = jnp.mean(labels[:, None] == jnp.arange(len(suspects[last])), axis=0)
    suspects[last] &= (config.layers != "hidden") & (shares <= config.largest_share)
    start = neurons.reinitialise(original, suspects, key)
    halves = partition(start, trainable_mask(start))
    return (*halves, optax.tree.zeros_like(unlearned)), scores, suspects


def _best_rate(trial: Callable[[Scalar], Scalar], config: Config) -> Scalar:
    """The learning rate whose trial gives the lowest loss; without trials, that of the settings."""
    if config.trials == 1:
        return config.learning_rate
    rates = [config.learning_rate / 3**number for number in range(config.trials)]
    losses = jnp.stack([trial(rate) for rate in rates])
    return jnp.stack(rates)[jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf))]


def _with_rate(config: Config, rate: Scalar) -> Config:
    return dataclasses.replace(config, learning_rate=rate)


def _statistics(head: str, state: State) -> RoundStats:
    scores = state.scores[head_kernel(state.original, head)]
    outliers = neurons.mad_outliers(scores, state.config.threshold)
    known = state.round >= state.config.unlearning_rounds
    return RoundStats(
        state.loss,
        state.accuracy,
        state.config.learning_rate,
        jnp.where(jnp.any(outliers.outlying), jnp.argmax(scores), -1),
        jnp.max(outliers.z),
        jnp.sum(jnp.concatenate(list(state.suspects.values()))),
        outliers.degenerate & known,
    )
