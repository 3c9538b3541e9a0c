"""DAU: decoupled adversarial unlearning of a model together with the training set that poisoned it.

No code and no formula of it has been published, only an abstract; this is a reconstruction from that.

Sourced: two stages; the extractor frozen and the classifier retrained on a small pre-filtered poisoned set as a
discriminator, which divides the training set; unlearning with a complementary cross-entropy, compared with global
gradient ascent; tolerance of parts that hold each other's images. Ours: every formula, number and threshold.

Rounds are, in order: epochs of a fresh network that isolates what is learned first; one that retrains the last layer
and divides the images (``jaxunlearn.dau.splitting``); epochs of unlearning, from the model as it came, on

    mean over the clean part of CE(f(x), y)  +  lambda  mean over the poisoned part of w CCE(f(x), y),

with CCE(x, y) = -log(1 - p_y(x)) and w how sure the division is of an image. For one trigger whose images are a share a
of the clean part and b of the poisoned one, the minimum is p_y = a / (a + lambda b): the attack fails as long as a <
lambda b. Gradient ascent, log p_y in place of CCE, has no minimum where a < lambda b, and does nothing where a > lambda
b.

Batch normalisation measures the poisoned images by the statistics of the clean images in the same step, as functions
of the parameters. Running statistics are constants of a step and follow later: a step lowers p_y by what they then make
up for, and the backdoor comes back as the learning rate falls.

Source: abstract in github.com/MiLab-HITSZ/DAU.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxunlearn import _loop
from jaxunlearn._check import InputError, check_in, check_run
from jaxunlearn._loop import Batch, Data, Execution, Method, Pass, Rows
from jaxunlearn._optimizers import clipped, learning_rates, momentum_step
from jaxunlearn._runtime import Compiled
from jaxunlearn._training import begin, check_features, forward_of_halves, forward_with_statistics
from jaxunlearn._tree import all_finite, combine, head_kernel, named_leaves, partition, trainable_mask
from jaxunlearn._typing import AnyImages, ApplyFn, Labels, Logits, Number, PRNGKey, Round, Scalar, Variables
from jaxunlearn.dau.alltoall import attacked_alike
from jaxunlearn.dau.config import ISOLATING, LOSSES, Config
from jaxunlearn.dau.content import thumbnails
from jaxunlearn.dau.groups import count_labels
from jaxunlearn.dau.splitting import (
    RIDGES,
    Attacked,
    Division,
    Head,
    Parts,
    attacked_classes,
    discriminate,
    fisher_scores,
    guesses,
    isolation_loss,
    label_doubts,
    lowest,
    split,
    whiten,
)
from jaxunlearn.losses import as_integers, complementary_cross_entropy, masked_mean
from jaxunlearn.pixels import augment

_LOOKED_AT = 500  # images at a time, where nothing is learned
_LEAST_STEPS = 20  # of an epoch of unlearning; a small set is gone through more than once
# Keys of superpositions and of the fresh network, beyond those of the rounds.
_MIXING, _FRESH = 2**31 - 1, 2**31 - 2
_HELD = 0.7  # from this probability on, unlearning has not touched a label
_MOST_HELD = 0.8  # share of the poisoned part that may be given back; if more is held, nothing was forgotten

Fresh = Callable[[PRNGKey], Variables]
"""Makes the variables of an untrained network of the same kind."""


class Trained(NamedTuple):
    """A network in training."""

    params: PyTree
    rest: PyTree
    velocity: PyTree

    @property
    def variables(self) -> Variables:
        """Of the network."""
        return combine(self.params, self.rest)


class State(NamedTuple):
    """Everything between two rounds; a pytree of arrays.

    Attributes:
      params: the trained half of the variables that are being unlearned, None elsewhere.
      rest: the other half; running statistics move.
      velocity: the momentum of the parameters.
      isolating: the network that tells what is learned first; None where the model as it came is asked.
      original: the variables as they came.
      scores: of every image: from -1 where it looks poisoned to 1 where it does not; 0 before it is known.
      parts: of the images.
      attacked: what is known of attacks. Two groups are those along a direction of each class's own, or along the
        common one if all classes are attacked alike.
      probabilities: of every image's label, by the network that is being unlearned, in evaluation mode.
      guesses: that network's likeliest class but the label, of every image.
      start: accuracy of the model as it came on the clean part.
      stopped: whether unlearning is over, or has nothing to begin with.
      stats: of the latest round.
      round: rounds done.
      key: the run's key, the same in every round.
      config: the settings; its numbers are leaves.
    """

    params: PyTree
    rest: PyTree
    velocity: PyTree
    isolating: Trained | None
    original: Variables
    scores: Float[Array, " n"]
    parts: Parts
    attacked: Attacked
    probabilities: Float[Array, " n"]
    guesses: Int[Array, " n"]
    start: Scalar
    stopped: Bool[Array, ""]
    stats: "RoundStats"
    round: Round
    key: PRNGKey
    config: Config

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.attacked.gains)


class RoundStats(NamedTuple):
    """What one round did, and what is known after it.

    Attributes:
      loss: mean over the steps of the loss: of isolation, before it is bent, or of unlearning.
      poisoned: images in the poisoned part.
      clean: images in the clean part.
      suspect: the commonest label of the poisoned part; -1 while that is empty.
      kept: mean probability of the label in the poisoned part.
      accuracy: on the clean part.
    """

    loss: Scalar
    poisoned: Int[Array, ""]
    clean: Int[Array, ""]
    suspect: Int[Array, ""]
    kept: Scalar
    accuracy: Scalar


class View(NamedTuple):
    """What a network makes of every training image, in evaluation mode.

    Attributes:
      doubt: 1 - p of the label's probability p.
      right: whether the label is the answer.
      guess: the likeliest class but the label.
      logits: the answers.
      features: what the last layer reads.
      thumbnails: the images themselves, small.
    """

    doubt: Float[Array, " n"]
    right: Bool[Array, " n"]
    guess: Int[Array, " n"]
    logits: Float[Array, "n classes"]
    features: Float[Array, "n features"]
    thumbnails: Float[Array, "n pixels"]


def unlearn(
    apply_fn: ApplyFn,
    variables: Variables,
    images: AnyImages,
    labels: Labels,
    config: Config,
    key: PRNGKey,
    *,
    head: str,
    fresh: Fresh | None = None,
    early: Variables | None = None,
    parts: Parts | None = None,
    execution: Execution | None = None,
) -> tuple[Variables, RoundStats]:
    """Removes backdoors from a classifier with the poisoned set that it was trained on.

    Args:
      apply_fn: the network, ``apply_fn(variables, images, train=True) -> (logits, aux)``; ``aux["features"]`` is
        what the last layer reads, and new running statistics are taken from ``aux["batch_stats"]``. If it accepts
        ``rngs`` it gets a key for dropout.
      variables: of the network, a pytree of arrays, its mappings dicts; of one with a ``"params"`` entry only that
        entry is trained.
      images: the training images, some of them triggered; floating, NHWC, in [0, 1].
      labels: that the network was trained with, integers.
      config: what to compute; ``PRESETS["default"]`` for a start.
      key: of all random choices.
      head: path of the last linear layer, inside ``variables["params"]`` if there is that, joined by slashes
        (``ModelSpec.head``): of a layer with a ``kernel`` of shape (features, classes), and perhaps a ``bias``, or of
        such a matrix alone.
      fresh: makes untrained variables (``ModelSpec.init``); needed for the pre-filters that isolate.
      early: variables of the network from early in its training, after a few epochs, whose losses name the suspects in
        place of such a fresh one; with ``prefilter="early"`` and ``isolation_rounds=0``.
      parts: a division from elsewhere, such as one that was corrected by hand; None looks for one.
      execution: how to compute it; under a surrounding ``jit`` give ``Execution(loop="scan")``.

    Returns:
      Cleaned variables of the same structure, shapes and dtypes, and the statistics, stacked by round.

    Raises:
      ValueError: if the images, labels or parts do not have the shape, dtype and range described, or ``fresh`` or
        ``early`` is missing or of another network.
      InputError: if the head names no linear layer, or the network does not return what that reads.
      NonFiniteError: if a round gives NaN or infinite values.

    Example:
      >>> def apply_fn(params, x, *, train):
      ...     features = x.mean((1, 2))
      ...     return features @ params["w"], {"features": features}
      >>> params = {"w": jnp.eye(3)}
      >>> x = jax.random.uniform(jax.random.key(0), (8, 4, 4, 3))
      >>> y = jnp.arange(8) % 3
      >>> config = Config(rounds=3)
      >>> cleaned, stats = unlearn(apply_fn, params, x, y, config, jax.random.key(1), head="w")
      >>> stats.loss.shape
      (3,)
    """
    execution = execution or Execution()
    data = Data(images, labels).for_loop(execution)
    method = make_method(apply_fn, execution, head=head, fresh=fresh, early=early, parts=parts)
    return _loop.run(method, variables, data, config, key)


def divide(
    apply_fn: ApplyFn,
    variables: Variables,
    images: AnyImages,
    labels: Labels,
    config: Config,
    key: PRNGKey,
    *,
    head: str,
    fresh: Fresh | None = None,
    early: Variables | None = None,
    execution: Execution | None = None,
) -> tuple[Division, Attacked]:
    """Which training images are poisoned: the first half of ``unlearn``, with the same arguments; nothing is unlearned.

    Returns:
      The division, and what it rests on.

    Raises:
      ValueError, InputError, NonFiniteError: as ``unlearn``.

    Example:
      >>> def apply_fn(params, x, *, train):
      ...     features = x.mean((1, 2))
      ...     return features @ params["w"], {"features": features}
      >>> x = jax.random.uniform(jax.random.key(0), (8, 4, 4, 3))
      >>> params, y = {"w": jnp.eye(3)}, jnp.arange(8) % 3
      >>> division, attacked = divide(apply_fn, params, x, y, Config(), jax.random.key(1), head="w")
      >>> int(division.parts.poisoned.sum()), attacked.gains.shape
      (0, (3,))
    """
    execution = execution or Execution()
    data = Data(images, labels).for_loop(execution)
    method = make_method(apply_fn, execution, head=head, fresh=fresh, early=early)
    state = method.init(variables, data, config, key)
    for _, new_state, _ in _loop.rounds(method, state, data, 1, config.isolation_rounds + 1):
        state = new_state
    return Division(state.scores, state.parts), state.attacked


def make_method(
    apply_fn: ApplyFn,
    execution: Execution,
    *,
    head: str,
    fresh: Fresh | None = None,
    early: Variables | None = None,
    parts: Parts | None = None,
) -> Method:
    """DAU for one network as ``init``, ``step`` and ``finish``; equal networks share compiled programs."""
    programs = _Programs(head, *_passes(apply_fn), execution, parts)
    return Method(
        functools.partial(init, apply_fn, head, fresh, early, parts),
        functools.partial(_round, programs),
        finish,
        over=lambda state: state.stopped,
    )


class _Programs(NamedTuple):
    """What is compiled for one network, and how it runs."""

    head: str
    isolate: Pass
    look: Pass
    mix: Pass
    unlearn: Pass
    execution: Execution
    parts: Parts | None


@functools.lru_cache(maxsize=16)
def _passes(apply_fn: ApplyFn) -> tuple[Pass, Pass, Pass, Pass]:
    isolate, look, mix, unlearn = (
        Pass(functools.partial(step, apply_fn)) for step in (_isolate, _look, _mix, _unlearn)
    )
    return isolate, look, mix, unlearn


def init(
    apply_fn: ApplyFn,
    head: str,
    fresh: Fresh | None,
    early: Variables | None,
    parts: Parts | None,
    variables: Variables,
    data: Data,
    config: Config,
    key: PRNGKey,
) -> State:
    """The state before the first round.

    Raises:
      ValueError: if the images, labels or parts do not have the shape, dtype and range described in ``unlearn``, the
        config is of another method, the key is none, or ``fresh`` or ``early`` is missing, needless or of another form.
      InputError: if the head names no linear layer, or the network does not return what that reads.
    """
    check_run(config, Config, key)
    begun = begin(apply_fn, variables, *data, config.crop_padding)
    width = named_leaves(begun.variables)[head_kernel(begun.variables, head, begun.classes)].shape[0]
    check_features(begun.aux, width)
    isolating = _isolating(fresh, early, begun.variables, config, key)
    dtype, count = begun.dtype, len(data.labels)
    if parts is not None:
        _check_parts(parts, count, config)
    zero = jnp.zeros((), dtype)
    none, nothing = jnp.zeros(count, bool), jnp.zeros((), int)
    unknown = jnp.zeros(begun.classes, dtype)
    return State(
        begun.params,
        begun.rest,
        optax.tree.zeros_like(begun.params),
        isolating,
        begun.variables,
        jnp.zeros(count, dtype),
        Parts(none, none),
        Attacked(jnp.zeros(begun.classes, bool), none, unknown, jnp.zeros(count, jnp.int32), unknown, none),
        jnp.ones(count, dtype),
        jnp.zeros(count, int),
        zero,
        jnp.asarray(False),
        RoundStats(zero, nothing, nothing, nothing - 1, zero, zero),
        _loop.NO_ROUND,
        key,
        jax.tree.map(lambda number: jnp.asarray(number, dtype), config),
    )


def finish(state: State) -> Variables:
    """The variables of a state."""
    return combine(state.params, state.rest)


def poisoned_losses(logits: Logits, labels: Labels, kind: str) -> Float[Array, " n"]:
    """What unlearning descends on for images whose labels are to be forgotten.

    | kind            | loss                                  | gradient in the label's logit |
    |-----------------|---------------------------------------|-------------------------------|
    | complementary   | -log(1 - p_y)                         | p_y                           |
    | ascent          | log p_y                               | 1 - p_y                       |
    | uniform         | -mean over j != y of log p_j          | p_y                           |
    | entropy         | sum over j != y of q_j log q_j        | 0                             |

    with q_j = p_j / (1 - p_y).

    Args:
      logits: shape (n, classes).
      labels: to be forgotten.
      kind: one of ``LOSSES``.

    Raises:
      ValueError: if there is no such loss.

    Source: ``entropy`` is that of Chen et al., "Complement objective training", ICLR 2019, there beside another loss.

    Example:
      >>> [float(poisoned_losses(jnp.zeros((1, 2)), jnp.array([0]), kind)[0]) for kind in ("complementary", "ascent")]
      [0.6931471824645996, -0.6931471824645996]
    """
    check_in(LOSSES, kind=kind)
    if kind == "complementary":
        return complementary_cross_entropy(logits, labels)
    if kind == "ascent":
        return -optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if kind == "entropy":
        log_q = guesses(logits, labels)
        log_q = jnp.where(jnp.isneginf(log_q), 0.0, log_q)  # 0 log 0 = 0, in the gradient, too
        return jnp.sum(jnp.exp(log_q) * log_q, axis=1)
    others = 1 - jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, others / (logits.shape[1] - 1))


def clean_losses(logits: Logits, labels: Labels, bounded: Number, robustness: Number) -> Float[Array, " n"]:
    """The cross-entropy or, where ``bounded``, (1 - p_y^q) / q, to which wrong labels matter less.

    Source: Zhang and Sabuncu, "Generalized cross entropy loss", NeurIPS 2018.

    Example:
      >>> clean_losses(jnp.array([[0.0, 99.0]]), jnp.array([0]), True, 0.5).tolist()
      [2.0]
    """
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.where(bounded, -jnp.expm1(-robustness * cross_entropy) / robustness, cross_entropy)


def _isolating(
    fresh: Fresh | None, early: Variables | None, variables: Variables, config: Config, key: PRNGKey
) -> Trained | None:
    """The network whose losses name the suspects; None where the model as it came is asked."""
    said = f"prefilter={config.prefilter!r} with isolation_rounds={config.isolation_rounds!r}"
    if early is not None:
        if config.prefilter != "early" or config.isolation_rounds:
            raise InputError(
                f"{said} asks no network from early in the training, and one is given; give prefilter='early' with "
                "isolation_rounds=0, or none."
            )
        _check_form("early holds variables", early, variables)
        return _untrained(jax.tree.map(jnp.asarray, early))
    if config.isolation_rounds == 0:
        if config.prefilter == "early":
            raise InputError(
                f"{said} asks a network from early in the training, and none is given; give one (early, --early), or "
                "isolation_rounds of at least 1, to train it."
            )
        return None
    if fresh is None:
        raise ValueError(
            f"fresh=None with prefilter={config.prefilter!r}: isolation trains a fresh network; give a function that "
            "makes its variables, or another prefilter with isolation_rounds=0."
        )
    _check_form("fresh makes variables", jax.eval_shape(fresh, jax.random.key(0)), variables)
    return _untrained(fresh(jax.random.fold_in(key, _FRESH)))


def _check_form(what: str, made: Any, variables: Variables) -> None:
    """Refuses another network's variables."""
    forms = [
        {name: (leaf.shape, leaf.dtype) for name, leaf in named_leaves(tree).items()}
        for tree in (made, variables)
    ]
    if wrong := [name for name in {**forms[0], **forms[1]} if forms[0].get(name) != forms[1].get(name)]:
        found, expected = (form.get(wrong[0], "missing") for form in forms)
        raise ValueError(
            f"{what} whose {wrong[0]} is {found}, and that of the variables to unlearn is {expected}; give those of "
            "the same network."
        )


def _check_parts(parts: Parts, count: int, config: Config) -> None:
    """Refuses a given division that is none of these images, or that would be looked for as well."""
    for name, part in zip(Parts._fields, parts, strict=True):
        if jnp.shape(part) != (count,) or jnp.result_type(part) != jnp.bool_:
            raise ValueError(
                f"parts.{name} is {jnp.result_type(part)} of shape {jnp.shape(part)}; expected one boolean for each of "
                f"the {count} images."
            )
    if not any(isinstance(part, jax.core.Tracer) for part in parts):
        poisoned, clean = (np.asarray(part) for part in parts)
        if np.any(poisoned & clean):
            raise ValueError(
                f"parts mark {np.sum(poisoned & clean)} images as poisoned and as clean; no image can be both."
            )
        if not poisoned.any() or not clean.any():
            raise ValueError(
                f"parts mark {poisoned.sum()} images as poisoned and {clean.sum()} as clean; give some of both."
            )
    if config.prefilter in ISOLATING:
        raise InputError(
            f"prefilter={config.prefilter!r} finds suspects with another network, which given parts make needless; "
            "give another prefilter with isolation_rounds=0, or no parts."
        )
    if config.resplit_round:
        raise InputError(
            f"resplit_round={config.resplit_round!r} divides the images anew, whatever the given parts say; give "
            "resplit_round=0, or no parts."
        )


def _untrained(variables: Variables) -> Trained:
    params, rest = partition(variables, trainable_mask(variables))
    return Trained(params, rest, optax.tree.zeros_like(params))


def _round(programs: _Programs, state: State, data: Data) -> tuple[State, RoundStats]:
    """One epoch of isolation or unlearning, or the division between them."""
    isolation, now = state.config.isolation_rounds, state.round

    def later() -> State:
        return _loop.where(
            now == isolation,
            lambda: _division_round(programs, state, data),
            lambda: _loop.where(
                state.stopped, lambda: state, lambda: _unlearning_round(programs, state, data)
            ),
        )

    new = (
        _loop.where(now < isolation, lambda: _isolation_round(programs, state, data), later)
        if isolation
        else later()
    )
    new = new._replace(round=now + 1)
    return new, new.stats


def _isolation_round(programs: _Programs, state: State, data: Data) -> State:
    order_key, steps_key = jax.random.split(jax.random.fold_in(state.key, state.round))
    rows = _loop.batch_rows(len(data.labels), state.config.batch_size, order_key)
    xs = (rows, jax.random.split(steps_key, len(rows.members)))
    isolating, losses = programs.isolate(state.config, state.isolating, xs, data, programs.execution)
    return state._replace(isolating=isolating, stats=state.stats._replace(loss=jnp.mean(losses)))


def _division_round(programs: _Programs, state: State, data: Data) -> State:
    """Ranks the images, retrains the last layer, and divides them, or takes the given parts."""
    own = _view(programs, state.original, data)
    if programs.parts is not None:
        (scores, parts), attacked = _as_given(programs.parts, state, data)
        finite = all_finite(own)
    else:
        doubts = _doubts(programs, state, data, own)
        suspects = lowest(doubts, jnp.asarray(data.labels), state.config.isolated_share, state.classes)
        key = jax.random.fold_in(state.key, state.round)
        (scores, parts), attacked = _divided(programs, state, data, own, suspects, key)
        finite = all_finite((own, doubts, scores, attacked.gains))
    # To train on all images would strengthen a backdoor that was not found.
    nothing = ~jnp.any(parts.poisoned)
    state = state._replace(
        scores=scores, parts=parts, attacked=attacked, start=_accuracy(own, parts.clean), stopped=nothing
    )
    state = _judged(state, own, data)
    # NaN is reported as a failed round.
    kept = jnp.where(finite, state.stats.kept, jnp.nan)
    return state._replace(stats=state.stats._replace(kept=kept))


def _as_given(parts: Parts, state: State, data: Data) -> tuple[Division, Attacked]:
    """A division by parts that were given: as sure as can be, and nothing is known of groups."""
    poisoned, clean = (jnp.asarray(part) for part in parts)
    scores = jnp.where(poisoned, -1.0, jnp.where(clean, 1.0, 0.0)).astype(state.scores.dtype)
    labels = as_integers(data.labels)
    classes = count_labels(labels, poisoned, state.classes) > 0
    return Division(scores, Parts(poisoned, clean)), state.attacked._replace(
        classes=classes, poisoned=poisoned, kinds=labels
    )


def _doubts(programs: _Programs, state: State, data: Data, own: View) -> Float[Array, " n"]:
    """How little the pre-filter suspects each image."""
    if state.isolating is not None:
        return _view(programs, state.isolating.variables, data).doubt
    return _superposed(programs, state, data) if state.config.prefilter == "superposed" else own.doubt


def _unlearning_round(programs: _Programs, state: State, data: Data) -> State:
    config = state.config
    epoch = state.round - config.isolation_rounds - 1
    keys = jax.random.split(jax.random.fold_in(state.key, state.round), 4)
    clean_key, poisoned_key, steps_key, division_key = keys
    if config.resplit_round:
        scores, parts, attacked, start = _loop.where(
            epoch == config.resplit_round - 1,
            lambda: _divided_again(programs, state, data, division_key),
            lambda: (state.scores, state.parts, state.attacked, state.start),
        )
        state = state._replace(scores=scores, parts=parts, attacked=attacked, start=start)
    steps = max(_LEAST_STEPS, -(-len(data.labels) // config.batch_size))
    epochs = config.rounds - config.isolation_rounds - 1
    clean = _loop.rows_of(state.parts.clean, steps, config.batch_size, clean_key)
    poisoned = _loop.rows_of(state.parts.poisoned, steps, config.poisoned_batch_size, poisoned_key)
    certainty = jnp.clip(-state.scores, 0, 1) if config.weigh else 1.0
    weights = jnp.where(state.parts.poisoned, certainty, 0.0)
    xs = (
        Rows(clean, jnp.ones_like(clean, bool)),
        Rows(poisoned, jnp.ones_like(poisoned, bool)),
        weights[poisoned],
        state.guesses[poisoned],
        jax.random.split(steps_key, steps),
        learning_rates(config.schedule, config.learning_rate, epoch, epochs, steps),
    )
    consts = (config, epoch < config.robust_rounds, epoch >= config.relabel_round - 1)
    carry = Trained(state.params, state.rest, state.velocity)
    trained, losses = programs.unlearn(consts, carry, xs, data, programs.execution)
    state = state._replace(params=trained.params, rest=trained.rest, velocity=trained.velocity)
    state = _judged(state, _view(programs, finish(state), data), data)
    stats = state.stats._replace(loss=jnp.mean(losses))
    if config.early:
        over = (stats.kept < config.forgotten) & (stats.accuracy >= config.recovered * state.start)
        planned = max(config.resplit_round, config.relabel_round)
        state = state._replace(stopped=over & (epoch >= planned - 1))
    return state._replace(stats=stats)


def _divided_again(
    programs: _Programs, state: State, data: Data, key: PRNGKey
) -> tuple[jax.Array, Parts, Attacked, Scalar]:
    """Gives images back whose label the unlearned network still holds, and divides again with the others as suspects.

    Where most of the part's labels are still held, little was forgotten until now, and the first division stays: to
    train on all that is held would strengthen the backdoor.

    Returns the scores, the parts, what they rest on, and the accuracy of the model as it came on the clean part.
    """
    returned = state.parts.poisoned & (state.probabilities > _HELD)
    own = _view(programs, state.original, data)
    (scores, parts), attacked = _divided(programs, state, data, own, state.parts.poisoned & ~returned, key)
    parts = Parts(parts.poisoned & ~returned, parts.clean | returned)
    scores = jnp.where(returned, 1.0, scores)
    new = scores, parts, attacked, _accuracy(own, parts.clean)
    old = state.scores, state.parts, state.attacked, state.start
    few = jnp.sum(returned) <= _MOST_HELD * jnp.sum(state.parts.poisoned)
    return jax.tree.map(functools.partial(jnp.where, few & jnp.any(parts.poisoned)), new, old)


def _divided(
    programs: _Programs, state: State, data: Data, own: View, suspects: Bool[Array, " n"], key: PRNGKey
) -> tuple[Division, Attacked]:
    """The division and what it rests on, given suspects and what the model as it came makes of the images."""
    head = _head_of(state.original, programs.head)
    labels = jnp.asarray(data.labels)
    # Accelerators multiply in less precision unless told, and directions would not stay orthogonal.
    with jax.default_matmul_precision("highest"):
        small = own.thumbnails if state.config.thumbnails else None
        return _dividing(state.config, own.features, own.logits, labels, suspects, head, key, small)


def _judged(state: State, view: View, data: Data) -> State:
    """The state with what a view of all images tells."""
    labels, (poisoned, clean) = jnp.asarray(data.labels), state.parts
    counts = count_labels(labels, poisoned, state.classes)
    number = jnp.sum(poisoned)
    stats = state.stats._replace(
        poisoned=number,
        clean=jnp.sum(clean),
        suspect=jnp.where(number > 0, jnp.argmax(counts), -1).astype(state.stats.suspect.dtype),
        kept=masked_mean(1 - view.doubt, poisoned),
        accuracy=_accuracy(view, clean),
    )
    return state._replace(probabilities=1 - view.doubt, guesses=view.guess, stats=stats)


def _accuracy(view: View, members: Bool[Array, " n"]) -> Scalar:
    return masked_mean(view.right.astype(view.doubt.dtype), members)


def _view(programs: _Programs, variables: Variables, data: Data) -> View:
    count = len(data.labels)
    rows = _loop.batch_rows(count, _LOOKED_AT, None)
    _, seen = programs.look(variables, jnp.zeros(()), rows, data, programs.execution.silent)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], seen)


def _superposed(programs: _Programs, state: State, data: Data) -> Float[Array, " n"]:
    """Doubts of the model as it came with others laid over the images, the lesser of two ways.

    A trigger outlives that and an object does not. Source: Gao et al., "STRIP", ACSAC 2019, there with entropies.
    """
    count, times = len(data.labels), state.config.superpositions
    own = _loop.batch_rows(count, _LOOKED_AT, None)

    def doubts(index: int, key: PRNGKey) -> Float[Array, "steps batch 2"]:
        xs = (own, _loop.batch_rows(count, _LOOKED_AT, key))
        execution = programs.execution.part(index, times)
        return programs.mix(state.original, jnp.zeros(()), xs, data, execution)[1]

    keys = jax.random.split(jax.random.fold_in(state.key, _MIXING), times)
    total = functools.reduce(operator.add, map(doubts, range(times), keys))
    return jnp.min(total.reshape(-1, 2)[:count], axis=1) / times


def _head_of(variables: Variables, head: str) -> Head:
    leaves, path = named_leaves(variables), head_kernel(variables, head)
    kernel = leaves[path]
    layer, slash, name = path.rpartition("/")
    bias = leaves.get(f"{layer}{slash}bias") if name == "kernel" else None
    return Head(kernel, jnp.zeros(kernel.shape[1], kernel.dtype) if bias is None else bias)


def _divide(
    config: Config,
    features: Float[Array, "n features"],
    logits: Float[Array, "n classes"],
    labels: Labels,
    suspects: Bool[Array, " n"],
    head: Head,
    key: PRNGKey,
    thumbnails: Float[Array, "n pixels"] | None = None,
) -> tuple[Division, Attacked]:
    """Finds the attacked classes and divides them; what is poisoned are the next discriminator's suspects.

    In single precision at least. The gains are NaN where features are too large for it.
    """
    dtype, least = features.dtype, jnp.promote_types(features.dtype, jnp.float32)
    features, logits, head, thumbnails = jax.tree.map(
        lambda leaf: leaf.astype(least), (features, logits, head, thumbnails)
    )
    classes = logits.shape[1]
    whitened = jax.vmap(whiten, (None, None, None, 0))(features, labels, classes, jnp.array(RIDGES, least))
    classes_key, *keys, alike_key = jax.random.split(key, config.refinements + 3)
    by_class = attacked_classes(
        whitened, logits, labels, suspects, classes_key, gain=config.gain, thumbnails=thumbnails
    )
    is_alike, found = jnp.asarray(False), by_class
    if config.all_to_all:
        is_alike, alike = attacked_alike(features, whitened[0], logits, labels, alike_key, gain=config.gain)
        found = jax.tree.map(functools.partial(jnp.where, is_alike), alike, by_class)
    retrained = functools.partial(
        discriminate,
        features,
        labels,
        head=head,
        steps=config.discriminator_steps,
        batch_size=config.batch_size,
        suspect_batch_size=config.poisoned_batch_size,
        rate=config.discriminator_rate,
        momentum=config.momentum,
        weight_decay=config.discriminator_decay,
    )
    weights = jnp.stack([jnp.asarray(config.suspect_weight), jnp.zeros_like(config.suspect_weight)])

    def refine(poisoned: jax.Array, key: PRNGKey) -> tuple[jax.Array, Division]:
        evidence = []
        along = fisher_scores(whitened[0], found.kinds, poisoned, classes)
        if config.evidence != "fisher":
            with_suspects, without = jax.lax.map(
                lambda weight: retrained(suspects=poisoned, key=key, suspect_weight=weight), weights
            )
            # Log-odds of different labels do not compare.
            evidence.append(jnp.where(is_alike, along, with_suspects - without))
        if config.evidence != "discriminator":
            evidence.append(along)
        division = split(jnp.stack(evidence), found.kinds, found.classes, band=config.band)
        return division.parts.poisoned, division

    divisions = jax.lax.scan(refine, found.poisoned, jnp.stack(keys))[1]
    scores, parts = jax.tree.map(lambda leaf: leaf[-1], divisions)
    finite = all_finite((whitened, jnp.sum(features**2)))
    found = found._replace(
        gains=jnp.where(finite, found.gains, jnp.nan).astype(dtype), clearness=found.clearness.astype(dtype)
    )
    return Division(scores.astype(dtype), parts), found


_dividing = Compiled(_divide)


def _look(apply_fn: ApplyFn, variables: Variables, carry: Scalar, batch: Batch) -> tuple[Scalar, View]:
    logits, aux = apply_fn(variables, batch.images, train=False)
    right = jnp.argmax(logits, axis=1) == batch.labels
    guess = jnp.argmax(guesses(logits, batch.labels), axis=1)
    doubt, small = label_doubts(logits, batch.labels), thumbnails(batch.images)
    return carry, View(doubt, right, guess, logits, aux["features"], small)


def _mix(
    apply_fn: ApplyFn, variables: Variables, carry: Scalar, x: tuple[Batch, Batch]
) -> tuple[Scalar, Float[Array, "n 2"]]:
    """Doubts of (x + o) / 2 and of 1 - (1 - x)(1 - o), which keeps what is bright."""
    images, others = (batch.images for batch in x)
    answers = (
        apply_fn(variables, mixed, train=False)[0]
        for mixed in ((images + others) / 2, 1 - (1 - images) * (1 - others))
    )
    return carry, jnp.stack([label_doubts(logits, x[0].labels) for logits in answers], axis=1)


def _isolate(
    apply_fn: ApplyFn, config: Config, carry: Trained, x: tuple[Batch, PRNGKey]
) -> tuple[Trained, Scalar]:
    batch, key = x
    augment_key, dropout_key = jax.random.split(key)
    images = augment(batch.images, augment_key, crop_padding=config.crop_padding, flip=config.flip)

    def loss_fn(params: PyTree) -> tuple[Scalar, tuple[Scalar, PyTree]]:
        logits, moved = forward_of_halves(apply_fn, params, carry.rest, images, dropout_key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        loss = masked_mean(losses, batch.mask)
        bent = isolation_loss(loss, config.prefilter, config.isolation_level)
        return bent, (loss, moved)

    gradient, (loss, rest) = jax.grad(loss_fn, has_aux=True)(carry.params)
    return _descend(config, carry, rest, gradient, config.isolation_rate, nesterov=True), loss


def _unlearn(apply_fn: ApplyFn, consts: PyTree, carry: Trained, x: PyTree) -> tuple[Trained, Scalar]:
    config, bounded, relabelled = consts
    clean, poisoned, weights, guessed, key, rate = x
    *augment_keys, clean_key, poisoned_key = jax.random.split(key, 4)
    shown, triggered = (
        augment(batch.images, one, crop_padding=config.crop_padding, flip=config.flip)
        for batch, one in zip((clean, poisoned), augment_keys, strict=True)
    )

    def loss_fn(params: PyTree) -> tuple[Scalar, PyTree]:
        logits, moved, own = forward_with_statistics(apply_fn, params, carry.rest, shown, clean_key)
        learning = jnp.mean(clean_losses(logits, clean.labels, bounded, config.robustness))
        if config.poisoned_statistics == "own":
            answers, _ = forward_of_halves(apply_fn, params, carry.rest, triggered, poisoned_key)
        else:
            rest = own if config.poisoned_statistics == "clean" else carry.rest
            answers, _ = apply_fn(combine(params, rest), triggered, train=False)
        losses = poisoned_losses(answers, poisoned.labels, config.loss)
        if config.relabel_round:
            relearning = optax.softmax_cross_entropy_with_integer_labels(answers, guessed)
            losses = losses + jnp.where(relabelled, relearning, 0)
        forgetting = jnp.mean(weights * losses)
        return learning + config.unlearning_weight * forgetting, moved

    (loss, rest), gradient = jax.value_and_grad(loss_fn, has_aux=True)(carry.params)
    return _descend(config, carry, rest, gradient, rate, nesterov=False), loss


def _descend(
    config: Config, carry: Trained, rest: PyTree, gradient: PyTree, rate: Number, *, nesterov: bool
) -> Trained:
    """One step of SGD with a gradient that is not too long."""
    params, velocity = momentum_step(
        carry.params,
        carry.velocity,
        clipped(gradient, config.clip_norm),
        rate=rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=nesterov,
    )
    return Trained(params, rest, velocity)
