"""SAU: unlearning of shared adversarial examples.

For every batch of clean images, perturbations are found that fool the current model f and the backdoored
model f_0 into the same answer (``jaxunlearn.sau.perturbations``). A trigger is such a perturbation, so that a
model that no longer answers like f_0 on them no longer knows the trigger either. The parameters descend on

    L = l_1 mean CE(f(x), y) + l_2 mean CE(f(x + d), y) + l_3 mean_i [i in P] -log(1 - p_f(y_i' | x_i + d_i)),

with means over the batch, and over that part of it that is shown perturbed,

where y_i' is what f_0 answers to x_i + d_i, and P are the images that it is fooled on: y_i' is neither the
true class nor its answer to the clean image. With distillation, which is this package's addition, the x of the first
term are random mixtures of two images, and y what f_0 answers to them, but that a suspected class is left out where
neither image is of it.

Source: Wei et al., "Shared adversarial unlearning: backdoor mitigation by unlearning shared adversarial
examples", NeurIPS 2023, arXiv:2307.10562; official code in github.com/SCLBD/BackdoorBench.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxunlearn import _loop, _universal
from jaxunlearn._check import check_run
from jaxunlearn._distillation import mixtures
from jaxunlearn._loop import Batch, Data, Execution, Method, Pass
from jaxunlearn._optimizers import direction, learning_rates
from jaxunlearn._training import begin, training_forward
from jaxunlearn._tree import combine, partition, trainable_mask
from jaxunlearn._typing import ApplyFn, Images, Labels, PRNGKey, Round, Scalar, Variables
from jaxunlearn._universal import Ascent
from jaxunlearn.losses import complementary_cross_entropy, masked_mean, mean_cross_entropy
from jaxunlearn.sau.config import Config
from jaxunlearn.sau.perturbations import climb, search, shown

# The official clamps of 1 - p: the loss is -log(1e-6 + min(1 - p, 0.999)).
_OFFSET, _ENOUGH = 1e-6, 0.999


class State(NamedTuple):
    """Everything between two rounds; a pytree of arrays.

    Attributes:
      params: the trained half of the variables, None elsewhere.
      frozen: the other half.
      optimizer: state of the parameters' optimizer.
      reference: the variables of the backdoored model.
      answers: of the backdoored model to every clean image.
      ascent: the perturbations that images share; None where every image has its own.
      perturbations: of every round so far, the most suspected one that images share, or the mean of their own
        that fool the backdoored model.
      round: rounds done.
      key: the run's key, the same in every round.
      config: the settings; its numbers are leaves.
    """

    params: PyTree
    frozen: PyTree
    optimizer: PyTree
    reference: Variables
    answers: Int[Array, " images"]
    ascent: Ascent | None
    perturbations: Float[Array, "rounds h w c"]
    round: Round
    key: PRNGKey
    config: Config


class Losses(NamedTuple):
    """The terms of the unlearning loss, without their weights.

    Attributes:
      clean: mean cross-entropy of the clean images.
      adversarial: mean cross-entropy of the perturbed images.
      shared: -log(1 - p) of the backdoored model's answers, summed where that is fooled, over all images.
    """

    clean: Scalar
    adversarial: Scalar
    shared: Scalar


class RoundStats(NamedTuple):
    """What one round did; means over its steps.

    Attributes:
      losses: the terms of the unlearning loss.
      fooled: share of perturbed images that fool the backdoored model.
      unlearned: share of those to which the current model, before the step, does not answer like it.
      radius: of the ball of perturbations, after the last step.
    """

    losses: Losses
    fooled: Scalar
    unlearned: Scalar
    radius: Scalar


class Examples(NamedTuple):
    """Perturbed images, and what the backdoored model makes of them.

    Attributes:
      batch: the perturbed images with their true labels.
      answers: of the backdoored model.
      fooled: whether an answer is neither the true class nor the one given to the clean image.
    """

    batch: Batch
    answers: Int[Array, " n"]
    fooled: Bool[Array, " n"]


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
      apply_fn: the network, ``apply_fn(variables, images, train=False) -> (logits, aux)``; for
        ``train_mode`` it returns ``aux["batch_stats"]``, and gets a key for dropout if it accepts ``rngs``.
      variables: of the network, a pytree of arrays, its mappings dicts; of one with a ``"params"`` entry only that
        entry changes, and ``"batch_stats"`` in ``train_mode``.
      images: clean images, floating, NHWC, in [0, 1].
      labels: their true classes, integers.
      config: what to compute.
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
      >>> stats.losses.shared.shape
      (2,)
    """
    execution = execution or Execution()
    data = Data(images, labels).for_loop(execution)
    return _loop.run(make_method(apply_fn, execution), variables, data, config, key)


def make_method(apply_fn: ApplyFn, execution: Execution) -> Method:
    """SAU for one network as ``init``, ``step`` and ``finish``; equal networks share compiled programs."""
    answer, look, descend = _passes(apply_fn)
    silent = execution.silent
    return Method(
        functools.partial(init, apply_fn, answer, silent),
        functools.partial(_round, functools.partial(_first_look, look, silent), descend, execution),
        finish,
    )


@functools.lru_cache(maxsize=16)
def _passes(apply_fn: ApplyFn) -> tuple[Pass, Pass, Pass]:
    answer, look, descend = (Pass(functools.partial(step, apply_fn)) for step in (_answer, _look, _descend))
    return answer, look, descend


def init(
    apply_fn: ApplyFn,
    answer: Pass,
    execution: Execution,
    variables: Variables,
    data: Data,
    config: Config,
    key: PRNGKey,
) -> State:
    """The state before the first round; ``variables`` are those of the backdoored model.

    Raises:
      ValueError: if the images or labels do not have the shape, dtype and range described in ``unlearn``, the config is
        of another method, or the key is none.
    """
    check_run(config, Config, key)
    variables, params, frozen, classes, dtype, _ = begin(apply_fn, variables, *data)
    rows = _loop.batch_rows(len(data.labels), config.batch_size, None)
    _, answers = answer(variables, None, rows, data, execution)
    ascent = None
    if config.perturbations == "classes":
        ascent = _universal.start((classes + 1, *data.images.shape[1:]), dtype)
    return State(
        params,
        frozen,
        direction(config.optimizer).init(params),
        variables,
        answers.reshape(-1)[: len(data.labels)],
        ascent,
        jnp.zeros((config.rounds, *data.images.shape[1:]), dtype),
        _loop.NO_ROUND,
        key,
        jax.tree.map(lambda number: jnp.asarray(number, dtype), config),
    )


def finish(state: State) -> Variables:
    """The variables of a state."""
    return combine(state.params, state.frozen)


def examine(apply_fn: ApplyFn, reference: Variables, perturbed: Batch, answers: Labels) -> Examples:
    """Shows perturbed images to the backdoored model.

    Args:
      apply_fn: the network.
      reference: variables of the backdoored model.
      perturbed: images with their perturbations and their true labels.
      answers: of the backdoored model to the clean images.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)), {})
      >>> images = jnp.broadcast_to(jnp.array([0.0, 1.0, 0.0]), (2, 4, 4, 3))
      >>> perturbed = Batch(images, jnp.array([0, 1]), jnp.ones(2, bool))
      >>> examine(apply_fn, {}, perturbed, jnp.array([0, 0])).fooled.tolist()  # answers 1, which is true of one
      [True, False]
    """
    found = _answers(apply_fn, reference, perturbed)
    return Examples(perturbed, found, (found != perturbed.labels) & (found != answers) & perturbed.mask)


def unlearning_loss(
    apply_fn: ApplyFn,
    variables: Variables,
    batch: Batch,
    examples: Examples,
    config: Config,
    key: PRNGKey,
) -> tuple[Scalar, tuple[Losses, Float[Array, "part classes"], Variables]]:
    """L, its terms, the logits of the perturbed images, and the variables with new running statistics.

    Args:
      apply_fn: the network.
      variables: of the current model.
      batch: clean images with their true labels, or with probabilities of classes.
      examples: perturbed images, as many or fewer.
      config: the weights of the terms, whether to clamp, and whether to run the network in training mode.
      key: of dropout, in training mode.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)), {})
      >>> batch = Batch(jnp.zeros((1, 4, 4, 2)), jnp.array([0]), jnp.ones(1, bool))
      >>> examples = Examples(batch, jnp.array([1]), jnp.ones(1, bool))
      >>> key = jax.random.key(0)
      >>> loss, _ = unlearning_loss(apply_fn, {}, batch, examples, Config(clamps=False), key)
      >>> float(loss)  # 2 log 2: two equal logits give the clean and the shared term log 2 each
      1.386294...
    """
    together = jnp.concatenate([batch.images, examples.batch.images])
    if config.train_mode:
        logits, variables = training_forward(apply_fn, variables, together, key)
    else:
        logits, _ = apply_fn(variables, together, train=False)
    clean, perturbed = jnp.split(logits, [len(batch.labels)])
    clamps = {"offset": _OFFSET, "enough": _ENOUGH} if config.clamps else {}
    otherwise = complementary_cross_entropy(perturbed, examples.answers, **clamps)
    losses = Losses(
        mean_cross_entropy(clean, batch.labels, batch.mask),
        mean_cross_entropy(perturbed, examples.batch.labels, examples.batch.mask),
        masked_mean(jnp.where(examples.fooled, otherwise, 0), examples.batch.mask),
    )
    weights = (config.clean_weight, config.adversarial_weight, config.shared_weight)
    total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
    return total, (losses, perturbed, variables)


def _round(
    first_look: Callable[[State, Data], Ascent | None],
    descend: Pass,
    execution: Execution,
    state: State,
    data: Data,
) -> tuple[State, RoundStats]:
    """One round: a search and a step of descent for every batch."""
    config, now = state.config, state.round
    order_key, step_key = jax.random.split(jax.random.fold_in(state.key, now))
    once_key = jax.random.fold_in(state.key, config.rounds + 1)  # that of no round
    order = {"never": None, "once": once_key, "round": order_key}[config.shuffle]
    rows = _loop.batch_rows(
        len(data.labels), config.batch_size, order, config.least_steps, whole=config.train_mode
    )
    steps = len(rows.members)
    rates = learning_rates(config.schedule, config.learning_rate, now, config.rounds, steps)
    ascent = _loop.where(now == 0, lambda: first_look(state, data), lambda: state.ascent)
    (params, frozen, optimizer, ascent), (stats, found) = descend(
        (state.reference, config),
        (state.params, state.frozen, state.optimizer, ascent),
        (rows, state.answers[rows.members], jax.random.split(step_key, steps), rates),
        data,
        execution,
    )
    new = state._replace(
        params=params,
        frozen=frozen,
        optimizer=optimizer,
        ascent=ascent,
        perturbations=state.perturbations.at[now].set(_typical(ascent, found, config)),
        round=now + 1,
    )
    radius = stats.radius[-1]
    return new, jax.tree.map(jnp.mean, stats)._replace(radius=radius)


def _first_look(look: Pass, execution: Execution, state: State, data: Data) -> Ascent | None:
    """The perturbations that images share, after a search on the backdoored model alone."""
    config = state.config
    if state.ascent is None or config.first_steps == 0:
        return state.ascent
    order_key, steps_key = jax.random.split(jax.random.fold_in(state.key, config.rounds))
    rows = _loop.batch_rows(len(data.labels), config.batch_size, order_key, config.first_steps)
    rows = jax.tree.map(lambda leaf: leaf[: config.first_steps], rows)
    keys = jax.random.split(steps_key, config.first_steps)
    xs = (rows, state.answers[rows.members], keys, jnp.zeros(config.first_steps))
    return look((state.reference, config), state.ascent, xs, data, execution)[0]


def _typical(
    ascent: Ascent | None, found: Float[Array, "steps h w c"], config: Config
) -> Float[Array, "h w c"]:
    """The perturbation that stands for a round."""
    if ascent is None:
        return jnp.mean(found, axis=0)
    return ascent.delta[jnp.argmax(_universal.suspect(ascent, config.focus))]


def _answer(apply_fn: ApplyFn, variables: Variables, carry: None, batch: Batch) -> tuple[None, Labels]:
    return carry, _answers(apply_fn, variables, batch)


def _answers(apply_fn: ApplyFn, variables: Variables, batch: Batch) -> Int[Array, " n"]:
    """What a model answers to the images that count, and 0 to the others."""

    def answer(images: Images) -> Int[Array, " n"]:
        return jnp.argmax(apply_fn(variables, images, train=False)[0], axis=1)

    return _loop.where_needed(answer, batch.mask, batch.images)


def _look(
    apply_fn: ApplyFn, consts: PyTree, ascent: Ascent, x: tuple[Batch, Labels, PRNGKey, Scalar]
) -> tuple[Ascent, None]:
    reference, config = consts
    batch, answers, key, _ = x
    return climb(apply_fn, (reference,), ascent, batch, answers, config, key), None


def _descend(
    apply_fn: ApplyFn, consts: PyTree, carry: PyTree, x: tuple[Batch, Labels, PRNGKey, Scalar]
) -> tuple[PyTree, tuple[RoundStats, Float[Array, "h w c"]]]:
    reference, config = consts
    params, frozen, optimizer, ascent = carry
    batch, reference_answers, key, rate = x
    part_key, search_key, dropout_key, mixing_key = jax.random.split(key, 4)

    models = (combine(params, frozen), reference)
    part, part_answers = _part(batch, reference_answers, config, part_key)
    if ascent is None:
        answers = _answers(apply_fn, models[0], part)
        delta = search(apply_fn, models, part, (answers, part_answers), config, search_key)
        perturbed = part.images + delta
    else:
        climb_key, carry_key = jax.random.split(search_key)
        for step in range(config.search_steps):
            step_key = jax.random.fold_in(climb_key, step)
            ascent = climb(apply_fn, models, ascent, batch, reference_answers, config, step_key)
        perturbed = _with_shared(ascent, part, config, carry_key)
    examples = examine(apply_fn, reference, part._replace(images=perturbed), part_answers)

    def gradients(shown: tuple[Batch, Examples]) -> tuple[tuple[PyTree, Losses, Scalar], PyTree]:
        def loss_fn(theta: PyTree) -> tuple[Scalar, tuple[Losses, jax.Array, PyTree]]:
            moving = combine(theta, frozen)
            loss, (losses, logits, moved) = unlearning_loss(apply_fn, moving, *shown, config, dropout_key)
            return loss, (losses, logits, partition(moved, trainable_mask(moving))[1])

        gradient, (losses, logits, moved) = jax.grad(loss_fn, has_aux=True)(params)
        otherwise = shown[1].fooled & (jnp.argmax(logits, axis=1) != shown[1].answers)
        return (gradient, losses, jnp.sum(otherwise.astype(logits.dtype))), moved

    if config.distillation:
        withheld: Bool[Array, " classes"] | bool = False
        if config.withhold and ascent is not None:
            withheld = _universal.suspects(_universal.suspect(ascent, config.focus))
        mixed, wanted = mixtures(
            apply_fn, reference, batch.images, batch.labels, mixing_key, withheld=withheld
        )
        batch = batch._replace(images=mixed, labels=wanted)
    shown = (_weighted(batch), examples._replace(batch=_weighted(examples.batch)))
    if config.train_mode:  # the statistics are those of the whole batch
        (gradient, losses, otherwise), frozen = gradients(shown)
    else:
        count = len(batch.labels) + len(part.labels)
        gradient, losses, otherwise = _loop.summed(lambda some: gradients(some)[0], shown, count)
    directions, optimizer = direction(config.optimizer).update(gradient, optimizer, params)
    params = jax.tree.map(lambda p, d: p - rate * d, params, directions)

    fooled = examples.fooled.astype(perturbed.dtype)
    number = jnp.maximum(jnp.sum(fooled), 1)
    mean_delta = jnp.tensordot(fooled, perturbed - part.images, 1) / number
    radius = jnp.asarray(config.radius if ascent is None else ascent.radius, fooled.dtype)
    stats = RoundStats(losses, masked_mean(fooled, part.mask), otherwise / number, radius)
    return (params, frozen, optimizer, ascent), (stats, mean_delta)


def _weighted(batch: Batch) -> Batch:
    """The batch with weights that sum to one as its mask: means over it are then sums over pieces of it."""
    weights = batch.mask.astype(batch.images.dtype)
    return batch._replace(mask=weights / jnp.maximum(jnp.sum(weights), 1))


def _part(batch: Batch, answers: Labels, config: Config, key: PRNGKey) -> tuple[Batch, Any]:
    """A random part of a batch to be shown perturbed, without padding where it can be avoided; and its answers."""
    if config.perturbed_share == 1:
        return batch, answers
    count = len(batch.labels)
    order = jnp.argsort(jnp.where(batch.mask, jax.random.uniform(key, (count,)), 2.0))
    rows = order[: math.ceil(config.perturbed_share * count - 1e-9)]
    return jax.tree.map(lambda leaf: leaf[rows], (batch, answers))


def _with_shared(ascent: Ascent, part: Batch, config: Config, key: PRNGKey) -> Images:
    """Images that carry random multiples of the perturbations that they share, the suspected ones most often."""
    kinds_key, scale_key = jax.random.split(key)
    kinds = _universal.draw_kinds(kinds_key, _universal.suspect(ascent, config.focus), part.labels)
    shape = (len(part.labels), 1, 1, 1)
    scale = jax.random.uniform(scale_key, shape, ascent.delta.dtype, config.scale_low, config.scale_high)
    return shown(part.images, scale * _universal.carried(ascent.delta, kinds), config)
