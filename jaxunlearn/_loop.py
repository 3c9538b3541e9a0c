"""The only loops: over the batches of a pass, and over the rounds of a method."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from jaxunlearn._check import check_in
from jaxunlearn._runtime import Compiled, slow_in_loops
from jaxunlearn._tree import all_finite, named_leaves
from jaxunlearn._typing import AnyImages, Images, Labels, PRNGKey, Probabilities, Variables

# On CPU, images whose activations fit into the caches: those that a condition is asked for, and those of a gradient in
# the parameters, which is added up.
_CHUNK, _PIECE = 16, 64


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a method runs; changes its results by rounding only.

    Attributes:
      loop: ``scan`` makes one program of a whole pass, right for GPU and TPU; ``host`` calls one compiled
        step per batch, right for CPU, where XLA runs gradients of JAX's own convolutions inside a loop up to a
        hundred times slower than outside (``jaxunlearn.models.convolve`` is as fast there); ``auto`` chooses by the
        default backend.
      on_batch: called in a host loop with the number of batches done and their total, for progress.
    """

    loop: str = "auto"
    on_batch: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Validates the settings."""
        check_in(("auto", "host", "scan"), loop=self.loop)

    @property
    def scans(self) -> bool:
        """Whether passes are scans."""
        return self.loop == "scan" or (self.loop == "auto" and jax.default_backend() != "cpu")

    @property
    def silent(self) -> "Execution":
        """The same without progress."""
        return replace(self, on_batch=None)

    def part(self, index: int, count: int) -> "Execution":
        """For one of several passes of equal length that are told of as one.

        Example:
          >>> told = []
          >>> execution = Execution(on_batch=lambda *progress: told.append(progress))
          >>> execution.part(1, 3).on_batch(2, 10)
          >>> told
          [(12, 30)]
        """
        told = self.on_batch
        if told is None:
            return self
        return replace(self, on_batch=lambda done, total: told(index * total + done, count * total))


class Batch(NamedTuple):
    """Some images with labels, or with probabilities; ``mask`` is false for the padding of a last, smaller batch."""

    images: Images
    labels: Labels | Probabilities
    mask: Bool[Array, " n"]


class Rows(NamedTuple):
    """Rows of a data set, batch by batch; leading axis: batches."""

    members: Int[Array, "batches n"]
    mask: Bool[Array, "batches n"]


class Data(NamedTuple):
    """The images to unlearn with: on the host, on a device, or read batch by batch."""

    images: AnyImages
    labels: Labels

    def gather(self, x: PyTree) -> PyTree:
        """The tree with the batch of images in the place of all ``Rows`` of one batch.

        Example:
          >>> data = Data(jnp.zeros((3, 2, 2, 1)), jnp.arange(3))
          >>> batch, rate = data.gather((Rows(jnp.array([2, 0]), jnp.ones(2, bool)), 0.1))
          >>> batch.labels.tolist(), rate
          ([2, 0], 0.1)
        """
        return jax.tree.map(
            lambda part: self._batch(part) if isinstance(part, Rows) else part,
            x,
            is_leaf=lambda part: isinstance(part, Rows),
        )

    def _batch(self, rows: Rows) -> Batch:
        images, labels = self
        if isinstance(rows.members, jax.core.Tracer):  # which host arrays cannot be indexed by
            images, labels = jnp.asarray(images), jnp.asarray(labels)
        return Batch(images[rows.members], labels[rows.members].astype(np.int32), rows.mask)

    def for_loop(self, execution: Execution) -> "Data":
        """The data as a loop can use it: for scans the images become an array on the device, sent there once.

        Left on the host, they would be sent anew with every pass.
        """
        # Lists stay what they are and are refused by every method, in either loop.
        if not execution.scans or isinstance(self.images, jax.Array | list | tuple):
            return self
        return self._replace(images=jnp.asarray(np.asarray(self.images)))


def batch_rows(
    count: int, batch_size: int, key: PRNGKey | None, least: int = 1, *, whole: bool = False
) -> Rows:
    """Divides a data set into batches, in an order drawn with ``key`` or as it lies without one.

    The last batch is filled up with masked rows, images of the same set, or left out for ``whole`` batches
    only, so that batch statistics see nothing else; a set smaller than a batch makes one smaller batch. The
    set is passed through again, in a new order, until there are at least ``least`` batches.

    Example:
      >>> batch_rows(3, 2, None).mask.tolist()
      [[True, True], [True, False]]
    """
    size = min(batch_size, count)
    batches = count // size if whole else -(-count // size)
    passes = max(1, -(-least // batches))
    if key is None:
        order = jnp.broadcast_to(jnp.arange(count), (passes, count))
    else:
        keys = jax.random.split(key, passes)
        order = jax.vmap(lambda one: jax.random.permutation(one, count))(keys)
    padding = ((0, 0), (0, max(0, batches * size - count)))
    padded = jnp.pad(order, padding, mode="wrap")[:, : batches * size]
    mask = jnp.broadcast_to(jnp.arange(batches * size) < count, padded.shape)
    return Rows(padded.reshape(-1, size), mask.reshape(-1, size))


def rows_of(members: Bool[Array, " n"], batches: int, size: int, key: PRNGKey) -> Int[Array, "batches size"]:
    """Rows of the images that ``members`` marks, in an order drawn with ``key``.

    They come over and over until all batches are full, so that the shapes do not depend on how many there are; where
    there is none, rows of others.

    Example:
      >>> rows = rows_of(jnp.array([False, True, False, True]), 2, 3, jax.random.key(0))
      >>> rows.shape, sorted(set(rows.ravel().tolist()))
      ((2, 3), [1, 3])
    """
    order = jnp.argsort(jnp.where(members, jax.random.uniform(key, members.shape), 2.0))
    places = jnp.arange(batches * size) % jnp.maximum(jnp.sum(members), 1)
    return order[places].reshape(batches, size)


class Pass:
    """A step applied to every batch of a data set: ``carry, out = step(consts, carry, data.gather(x))``.

    Made once and called often, so that its compiled programs are found again. In a host loop the images are gathered
    outside the compiled step.
    """

    def __init__(self, step: Callable[..., Any]) -> None:
        """Takes ``step(consts, carry, x)``: a carry of the same structure, shapes and dtypes, and an output."""
        self._step = Compiled(step)
        self._scan = Compiled(
            lambda consts, carry, xs, data: jax.lax.scan(
                lambda value, x: step(consts, value, data.gather(x)), carry, xs
            )
        )

    def __call__(
        self, consts: PyTree, carry: PyTree, xs: PyTree, data: Data, execution: Execution
    ) -> tuple[PyTree, PyTree]:
        """Runs the step over the leading axis of ``xs``; returns the last carry, and the outputs stacked."""
        if execution.scans:
            return self._scan(consts, carry, xs, data)
        total = len(jax.tree.leaves(xs)[0])
        outputs: list[PyTree] = []
        for index in range(total):
            inputs = data.gather(jax.tree.map(lambda leaf, i=index: leaf[i], xs))
            carry, out = self._step(consts, carry, inputs)
            outputs.append(out)
            if execution.on_batch is not None:
                jax.block_until_ready(out)
                execution.on_batch(index + 1, total)
        return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def iterate(step: Callable[[PyTree], PyTree], carry: PyTree, times: int) -> PyTree:
    """Applies a step a few times, inside a compiled program; without a loop where that would be slow."""
    unrolled = slow_in_loops(step, carry)
    return jax.lax.scan(lambda value, _: (step(value), None), carry, length=times, unroll=unrolled)[0]


def where_needed(fun: Callable[[PyTree], PyTree], needed: Bool[Array, " n"], parts: PyTree) -> PyTree:
    """``fun(parts)`` for the images that need it, and zeros for the others, which cost nothing.

    On CPU in chunks, those that are needed first, and no more chunks than it takes; elsewhere all or none. Where
    a condition would be slow, and under ``vmap``, everything is computed. Results differ by rounding only.

    Args:
      fun: from the arrays of some images to arrays of theirs, each image for itself.
      needed: which images.
      parts: arrays whose leading axis is images.

    Example:
      >>> where_needed(lambda x: x + 1, jnp.array([False, True]), jnp.array([5.0, 6.0])).tolist()
      [0.0, 7.0]
    """

    def kept(out: PyTree) -> PyTree:
        def only(leaf: jax.Array) -> jax.Array:
            return jnp.where(needed.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, jnp.zeros_like(leaf))

        return jax.tree.map(only, out)

    def unless_none(wanted: Bool[Array, " m"], some: PyTree) -> PyTree:
        return jax.lax.cond(jnp.any(wanted), fun, lambda part: _zeros(fun, part), some)

    if slow_in_loops(fun, parts):
        return kept(fun(parts))
    count = len(needed)
    if jax.default_backend() != "cpu" or count <= _CHUNK:
        return kept(unless_none(needed, parts))
    order = jnp.argsort(~needed)
    rows = jnp.pad(order, (0, -count % _CHUNK), mode="edge").reshape(-1, _CHUNK)
    chunks = jax.lax.map(
        lambda members: unless_none(needed[members], jax.tree.map(lambda leaf: leaf[members], parts)), rows
    )
    back = jnp.argsort(order)
    return kept(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[back], chunks))


def summed(fun: Callable[[PyTree], PyTree], parts: PyTree, images: int) -> PyTree:
    """``fun(parts)``, a sum over images, as the sum over pieces of them that fit the caches, on CPU.

    A gradient in the parameters of 512 images takes two thirds of the time that way. Where a loop would be slow, and
    elsewhere, all are one piece. Results differ by rounding only.

    Args:
      fun: from the arrays of some images to sums over them; images whose arrays are zero must add nothing.
      parts: arrays whose leading axes are images, not all of them as many.
      images: how many ``fun`` looks at in all.

    Example:
      >>> summed(lambda part: part.sum(), jnp.arange(1000), 1000).item()
      499500
    """
    pieces = -(-images // _PIECE) if jax.default_backend() == "cpu" else 1
    if pieces == 1 or slow_in_loops(fun, parts):
        return fun(parts)

    def cut(leaf: jax.Array) -> jax.Array:
        filled = jnp.pad(leaf, [(0, -len(leaf) % pieces), *[(0, 0)] * (leaf.ndim - 1)])
        return filled.reshape(pieces, -1, *leaf.shape[1:])

    def add(total: PyTree, part: PyTree) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, fun(part)), None

    return jax.lax.scan(add, _zeros(fun, parts), jax.tree.map(cut, parts))[0]


def _zeros(fun: Callable[[PyTree], PyTree], parts: PyTree) -> PyTree:
    """Zeros in the place of what ``fun`` would return."""
    return jax.tree.map(lambda out: jnp.zeros(out.shape, out.dtype), jax.eval_shape(fun, parts))


NO_ROUND = np.int32(0)
"""Rounds done before the first. Of NumPy, so that it and its successors have a value where the rest is traced, and
only what a round needs is computed there (``where``)."""


class Method(NamedTuple):
    """An unlearning method as pure functions.

    Attributes:
      init: ``init(variables, data, config, key)`` gives a state, a named tuple of arrays; its ``round`` counts the
        rounds done, from ``NO_ROUND``.
      step: ``step(state, data)`` runs one round and gives a state and its statistics.
      finish: ``finish(state)`` gives the variables.
      over: ``over(state)`` says whether further rounds would change nothing.
    """

    init: Callable[..., Any]
    step: Callable[..., Any]
    finish: Callable[..., Any]
    over: Callable[[Any], bool | Bool[Array, ""]] = lambda _: False


_NAMED = 4  # quantities that a sentence has room for


class NonFiniteError(ArithmeticError):
    """A round gave NaN or infinite values.

    Attributes:
      round: the number of the failed round, from 1.
      quantities: what was not finite.
      last_good: the state before that round.
    """

    def __init__(self, number: int, quantities: list[str], last_good: Any) -> None:
        """Describes the failed round."""
        shown = quantities[:_NAMED]
        others = f" and {len(quantities) - len(shown)} others" if len(quantities) > len(shown) else ""
        super().__init__(
            f"Round {number} gave NaN or infinite values in {', '.join(shown)}{others}; a smaller learning rate may "
            "help."
        )
        self.round = number
        self.quantities = quantities
        self.last_good = last_good


def rounds(
    method: Method, state: Any, data: Data, first: int, last: int
) -> Iterator[tuple[int, Any, PyTree]]:
    """Runs rounds ``first`` to ``last`` (from 1), yielding the number, the state and the statistics of each.

    Raises:
      NonFiniteError: after a round whose variables or statistics hold NaN or infinity, unless traced.
    """
    for number in range(first, last + 1):
        new_state, stats = method.step(state, data)
        result = {"variables": method.finish(new_state), "statistics": stats}
        finite = all_finite(result)
        if not isinstance(finite, jax.core.Tracer) and not bool(finite):
            wrong = [name for name, leaf in named_leaves(result).items() if not bool(all_finite(leaf))]
            raise NonFiniteError(number, wrong, state)
        state = new_state
        yield number, state, stats


def run(
    method: Method, variables: Variables, data: Data, config: Any, key: PRNGKey
) -> tuple[Variables, PyTree]:
    """All rounds of a method: the variables that it ends with, and the statistics stacked by round.

    Raises:
      NonFiniteError: if a round gives NaN or infinite values.
    """
    state = method.init(variables, data, config, key)
    history = []
    for _, new_state, stats in rounds(method, state, data, 1, config.rounds):
        state = new_state
        history.append(stats)
    return method.finish(state), jax.tree.map(lambda *leaves: jnp.stack(leaves), *history)


def where(
    condition: Bool[Array, ""] | np.bool_, fun: Callable[[], PyTree], other: Callable[[], PyTree]
) -> PyTree:
    """``fun()`` where the condition holds and ``other()`` where not, of equal structure.

    Where the condition is traced both are computed; where it has a value, only what it asks for.
    """
    if not isinstance(condition, jax.core.Tracer):
        return fun() if bool(condition) else other()
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old), fun(), other())
