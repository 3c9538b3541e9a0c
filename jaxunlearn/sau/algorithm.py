"""SAU: unlearning of shared adversarial examples.

For every batch of clean images, perturbations are found that fool the current model f and the backdoored
model f_0 into the same answer (``jaxunlearn.sau.perturbations``). A trigger is such a perturbation, so that a
model that no longer answers like f_0 on them no longer knows the trigger either. The parameters descend on

    L = l_1 mean CE(f(x), y) + l_2 mean CE(f(x + d), y) + l_3 mean_i [i in P] -log(1 - p_f(y_i' | x_i + d_i)),

where y_i' is what f_0 answers to x_i + d_i, and P are the images that it is fooled on: y_i' is neither the
true class nor its answer to the clean image.

Source: Wei et al., "Shared adversarial unlearning: backdoor mitigation by unlearning shared adversarial
examples", NeurIPS 2023, arXiv:2307.10562; official code in github.com/SCLBD/BackdoorBench.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxunlearn import _loop
from jaxunlearn._check import check_images_and_labels
from jaxunlearn._loop import Batch, Data, Execution, Method, Pass, Rows
from jaxunlearn._optimizers import direction, learning_rates
from jaxunlearn._training import training_forward
from jaxunlearn._tree import combine, partition, trainable_mask
from jaxunlearn._typing import ApplyFn, Images, Labels, PRNGKey, Scalar, Variables
from jaxunlearn.losses import complementary_cross_entropy, masked_mean, mean_cross_entropy
from jaxunlearn.sau.config import Config
from jaxunlearn.sau.perturbations import Perturbations, search

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
      perturbations: of every round so far, the mean of those that fool the backdoored model.
      round: rounds done.
      key: the run's key, the same in every round.
      config: the settings; its numbers are leaves.
    """

    params: PyTree
    frozen: PyTree
    optimizer: PyTree
    reference: Variables
    answers: Int[Array, " images"]
    perturbations: Float[Array, "rounds h w c"]
    round: Int[Array, ""]
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
    """

    losses: Losses
    fooled: Scalar
    unlearned: Scalar


class Examples(NamedTuple):
    """Perturbed images, and what the backdoored model makes of them.

    Attributes:
      images: clean images and their perturbations, added.
      answers: of the backdoored model.
      fooled: whether an answer is neither the true class nor the one given to the clean image.
    """

    images: Images
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
      variables: of the network, any pytree; of one with a ``"params"`` entry only that entry changes, and
        ``"batch_stats"`` in ``train_mode``.
      images: clean images, floating, NHWC, in [0, 1].
      labels: their true classes, integers.
      config: what to compute.
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
      >>> stats.losses.shared.shape
      (2,)
    """
    execution = execution or Execution()
    data = Data(images, labels).for_loop(execution)
    return _loop.run(make_method(apply_fn, execution), variables, data, config, key)


@functools.lru_cache(maxsize=16)
def make_method(apply_fn: ApplyFn, execution: Execution) -> Method:
    """SAU for one network as ``init``, ``step`` and ``finish``; equal arguments share compiled programs."""
    answer = Pass(functools.partial(_answer, apply_fn), Data.gather)
    descend = Pass(functools.partial(_descend, apply_fn), _fetch)
    silent = Execution(loop=execution.loop)
    return Method(
        functools.partial(init, answer, silent), functools.partial(_round, descend, execution), finish
    )


def init(
    answer: Pass, execution: Execution, variables: Variables, data: Data, config: Config, key: PRNGKey
) -> State:
    """The state before the first round; ``variables`` are those of the backdoored model.

    Raises:
      ValueError: if the images or labels do not have the shape and dtype described in ``unlearn``.
    """
    check_images_and_labels(data.images, data.labels)
    dtype = data.images.dtype
    variables = jax.tree.map(jnp.asarray, variables)
    params, frozen = partition(variables, trainable_mask(variables))
    rows = _loop.batch_rows(len(data.labels), config.batch_size, None)
    _, answers = answer(variables, None, rows, data, execution)
    return State(
        params,
        frozen,
        direction(config.optimizer).init(params),
        variables,
        answers.reshape(-1)[: len(data.labels)],
        jnp.zeros((config.rounds, *data.images.shape[1:]), dtype),
        jnp.asarray(0),
        key,
        jax.tree.map(lambda number: jnp.asarray(number, dtype), config),
    )


def finish(state: State) -> Variables:
    """The variables of a state."""
    return combine(state.params, state.frozen)


def examine(
    apply_fn: ApplyFn, reference: Variables, delta: Perturbations, batch: Batch, answers: Labels
) -> Examples:
    """Shows perturbed images to the backdoored model.

    Args:
      apply_fn: the network.
      reference: variables of the backdoored model.
      delta: the perturbation of every image.
      batch: clean images with their true labels.
      answers: of the backdoored model to the clean images.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)), {})
      >>> batch = Batch(jnp.zeros((2, 4, 4, 3)), jnp.array([0, 1]), jnp.ones(2, bool))
      >>> delta = jnp.broadcast_to(jnp.array([0.0, 1.0, 0.0]), (2, 4, 4, 3))
      >>> examine(apply_fn, {}, delta, batch, jnp.array([0, 0])).fooled.tolist()  # answers 1, which is true of one
      [True, False]
    """
    images = batch.images + delta
    found = jnp.argmax(apply_fn(reference, images, train=False)[0], axis=1)
    return Examples(images, found, (found != batch.labels) & (found != answers) & batch.mask)


def unlearning_loss(
    apply_fn: ApplyFn,
    variables: Variables,
    batch: Batch,
    examples: Examples,
    config: Config,
    key: PRNGKey,
) -> tuple[Scalar, tuple[Losses, Float[Array, "n classes"], Variables]]:
    """L, its terms, the logits of the perturbed images, and the variables with new running statistics.

    Args:
      apply_fn: the network.
      variables: of the current model.
      batch: clean images with their true labels.
      examples: the same images, perturbed.
      config: the weights of the terms, whether to clamp, and whether to run the network in training mode.
      key: of dropout, in training mode.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)), {})
      >>> batch = Batch(jnp.zeros((1, 4, 4, 2)), jnp.array([0]), jnp.ones(1, bool))
      >>> examples = Examples(batch.images, jnp.array([1]), jnp.ones(1, bool))
      >>> key = jax.random.key(0)
      >>> loss, _ = unlearning_loss(apply_fn, {}, batch, examples, Config(clamps=False), key)
      >>> float(loss)  # 2 log 2: two equal logits give the clean and the shared term log 2 each
      1.386294...
    """
    together = jnp.concatenate([batch.images, examples.images])
    if config.train_mode:
        logits, variables = training_forward(apply_fn, variables, together, key)
    else:
        logits, _ = apply_fn(variables, together, train=False)
    clean, perturbed = jnp.split(logits, 2)
    clamps = {"offset": _OFFSET, "enough": _ENOUGH} if config.clamps else {}
    otherwise = complementary_cross_entropy(perturbed, examples.answers, **clamps)
    losses = Losses(
        mean_cross_entropy(clean, batch.labels, batch.mask),
        mean_cross_entropy(perturbed, batch.labels, batch.mask),
        masked_mean(jnp.where(examples.fooled, otherwise, 0), batch.mask),
    )
    weights = (config.clean_weight, config.adversarial_weight, config.shared_weight)
    total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
    return total, (losses, perturbed, variables)


def _round(descend: Pass, execution: Execution, state: State, data: Data) -> tuple[State, RoundStats]:
    """One round: a search and a step of descent for every batch."""
    config, now = state.config, state.round
    order_key, step_key = jax.random.split(jax.random.fold_in(state.key, now))
    order = {"never": None, "once": state.key, "round": order_key}[config.shuffle]
    rows = _loop.batch_rows(
        len(data.labels), config.batch_size, order, config.least_steps, whole=config.train_mode
    )
    steps = len(rows.members)
    rates = learning_rates(config.schedule, config.learning_rate, now, config.rounds, steps)
    (params, frozen, optimizer), (stats, found) = descend(
        (state.reference, config),
        (state.params, state.frozen, state.optimizer),
        (rows, state.answers[rows.members], jax.random.split(step_key, steps), rates),
        data,
        execution,
    )
    new = state._replace(
        params=params,
        frozen=frozen,
        optimizer=optimizer,
        perturbations=state.perturbations.at[now].set(jnp.mean(found, axis=0)),
        round=now + 1,
    )
    return new, jax.tree.map(jnp.mean, stats)


def _answer(apply_fn: ApplyFn, variables: Variables, carry: None, batch: Batch) -> tuple[None, Labels]:
    return carry, jnp.argmax(apply_fn(variables, batch.images, train=False)[0], axis=1)


def _fetch(data: Data, x: tuple[Rows, Labels, PRNGKey, Scalar]) -> tuple[Batch, Labels, PRNGKey, Scalar]:
    rows, answers, key, rate = x
    return data.gather(rows), answers, key, rate


def _descend(
    apply_fn: ApplyFn, consts: PyTree, carry: PyTree, x: tuple[Batch, Labels, PRNGKey, Scalar]
) -> tuple[PyTree, tuple[RoundStats, Float[Array, "h w c"]]]:
    reference, config = consts
    params, frozen, optimizer = carry
    batch, reference_answers, key, rate = x
    search_key, dropout_key = jax.random.split(key)

    variables = combine(params, frozen)
    _, answers = _answer(apply_fn, variables, None, batch)
    models = (variables, reference)
    delta = search(apply_fn, models, batch, (answers, reference_answers), config, search_key)
    examples = examine(apply_fn, reference, delta, batch, reference_answers)

    def loss_fn(theta: PyTree) -> tuple[Scalar, tuple[Losses, jax.Array, PyTree]]:
        moving = combine(theta, frozen)
        loss, (losses, logits, moved) = unlearning_loss(
            apply_fn, moving, batch, examples, config, dropout_key
        )
        return loss, (losses, logits, partition(moved, trainable_mask(moving))[1])

    gradient, (losses, logits, frozen_after) = jax.grad(loss_fn, has_aux=True)(params)
    directions, optimizer = direction(config.optimizer).update(gradient, optimizer, params)
    params = jax.tree.map(lambda p, d: p - rate * d, params, directions)

    fooled = examples.fooled.astype(delta.dtype)
    unlearned = masked_mean((jnp.argmax(logits, axis=1) != examples.answers).astype(delta.dtype), fooled)
    mean_delta = jnp.tensordot(fooled, delta, 1) / jnp.maximum(jnp.sum(fooled), 1)
    stats = RoundStats(losses, masked_mean(fooled, batch.mask), unlearned)
    return (params, frozen_after, optimizer), (stats, mean_delta)
