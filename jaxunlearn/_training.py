"""The forward pass of training: batch statistics move, dropout draws."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxunlearn._tree import combine, partition, trainable_mask
from jaxunlearn._typing import AnyImages, ApplyFn, Images, PRNGKey, Variables


def training_forward(
    apply_fn: ApplyFn, variables: Variables, images: Images, key: PRNGKey
) -> tuple[jax.Array, Variables]:
    """Applies a network as in training.

    Dropout is drawn with ``key`` by a network that accepts ``rngs``, by name or among any keywords
    (``ModelSpec.apply`` does); another network is called without.

    Args:
      apply_fn: the network.
      variables: of the network.
      images: pixels.
      key: of dropout.

    Returns:
      The logits, and the variables with the running statistics that the network returned, if it did.

    Example:
      >>> def apply_fn(variables, x, *, train):
      ...     return x.mean((1, 2)), {"batch_stats": {"mean": x.mean()}}
      >>> variables = {"params": {}, "batch_stats": {"mean": 0.0}}
      >>> _, variables = training_forward(apply_fn, variables, jax.numpy.ones((1, 2, 2, 3)), jax.random.key(0))
      >>> float(variables["batch_stats"]["mean"])
      1.0
    """
    keywords = {"rngs": {"dropout": key}} if _takes_rngs(apply_fn) else {}
    logits, aux = apply_fn(variables, images, train=True, **keywords)
    if "batch_stats" not in aux:
        return logits, variables
    return logits, {**variables, "batch_stats": aux["batch_stats"]}


def forward_of_halves(
    apply_fn: ApplyFn, params: PyTree, rest: PyTree, images: Images, key: PRNGKey
) -> tuple[jax.Array, PyTree]:
    """``training_forward`` of variables that come as their trained half and the rest; the rest as it moved.

    Example:
      >>> def apply_fn(variables, x, *, train):
      ...     return x.mean((1, 2)), {"batch_stats": {"mean": x.mean()}}
      >>> params, rest = {"params": {}, "batch_stats": {"mean": None}}, {"params": {}, "batch_stats": {"mean": 0.0}}
      >>> _, rest = forward_of_halves(apply_fn, params, rest, jax.numpy.ones((1, 2, 2, 3)), jax.random.key(0))
      >>> float(rest["batch_stats"]["mean"])
      1.0
    """
    variables = combine(params, rest)
    logits, moved = training_forward(apply_fn, variables, images, key)
    return logits, partition(moved, trainable_mask(variables))[1]


def forward_with_statistics(
    apply_fn: ApplyFn, params: PyTree, rest: PyTree, images: Images, key: PRNGKey
) -> tuple[jax.Array, PyTree, PyTree]:
    """``forward_of_halves``, and the rest with the batch's own statistics in the place of the running ones.

    Running statistics r move towards those of the batch, b, by r' = (1 - m) r + m b, so that b = r + (r' - r) / m and
    1 - m = dr'/dr, whatever the network's momentum is. b depends on the parameters and can be differentiated. Of a
    variance (``var``) no more than its rounding can be negative: it is 0 then.

    Example:
      >>> def apply_fn(variables, x, *, train):
      ...     mean = 0.9 * variables["batch_stats"]["mean"] + 0.1 * x.mean()
      ...     return x.mean((1, 2)), {"batch_stats": {"mean": mean}}
      >>> params, rest = {"params": {}, "batch_stats": {"mean": None}}, {"params": {}, "batch_stats": {"mean": 2.0}}
      >>> images, key = jax.numpy.ones((1, 2, 2, 3)), jax.random.key(0)
      >>> _, moved, own = forward_with_statistics(apply_fn, params, rest, images, key)
      >>> round(float(moved["batch_stats"]["mean"]), 3), round(float(own["batch_stats"]["mean"]), 3)
      (1.9, 1.0)
    """
    if "batch_stats" not in rest:
        logits, moved = forward_of_halves(apply_fn, params, rest, images, key)
        return logits, moved, moved
    running = jax.tree.map(jnp.asarray, rest["batch_stats"])
    mask = trainable_mask(running)
    running, others = partition(running, mask)

    def forward(running: PyTree) -> tuple[PyTree, tuple[jax.Array, PyTree]]:
        given = {**rest, "batch_stats": combine(running, others)}
        logits, moved = forward_of_halves(apply_fn, params, given, images, key)
        return partition(moved["batch_stats"], mask)[0], (logits, moved)

    new, slope, (logits, moved) = jax.jvp(
        forward, (running,), (jax.tree.map(jnp.ones_like, running),), has_aux=True
    )

    def batch_of(path: tuple[Any, ...], old: jax.Array, new: jax.Array, slope: jax.Array) -> jax.Array:
        moves = slope < 1
        found = old + jnp.where(moves, (new - old) / jnp.where(moves, 1 - slope, 1), 0)
        return jnp.maximum(found, 0) if getattr(path[-1], "key", None) == "var" else found

    own = combine(jax.tree.map_with_path(batch_of, running, new, slope), others)
    return logits, moved, {**rest, "batch_stats": own}


def _takes_rngs(apply_fn: ApplyFn) -> bool:
    parameters = inspect.signature(apply_fn).parameters.values()
    return any(p.name == "rngs" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def count_classes(apply_fn: ApplyFn, variables: Variables, images: AnyImages) -> int:
    """The number of classes that a network tells apart, from the shape of its logits; nothing is computed."""
    example = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    return jax.eval_shape(functools.partial(apply_fn, train=False), variables, example)[0].shape[1]
