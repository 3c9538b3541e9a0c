"""The forward pass of training: batch statistics move, dropout draws."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxunlearn._check import InputError, check_classes, check_crops, check_images_and_labels
from jaxunlearn._tree import all_finite, combine, named_leaves, partition, trainable_mask
from jaxunlearn._typing import AnyImages, ApplyFn, Images, PRNGKey, Variables


class Begun(NamedTuple):
    """What every method begins with.

    Attributes:
      variables: of the network, as arrays.
      params: their trained half, None elsewhere.
      rest: the other half.
      classes: that the network tells apart.
      dtype: of all computing.
      aux: shapes of what the network returns beside the logits, for one image.
    """

    variables: Variables
    params: PyTree
    rest: PyTree
    classes: int
    dtype: jnp.dtype
    aux: Mapping[str, Any]


def begin(apply_fn: ApplyFn, variables: Variables, images: Any, labels: Any, crop_padding: int = 0) -> Begun:
    """Checks a network and the images to unlearn with, and divides the network's variables.

    Raises:
      ValueError: if the images are not floating NHWC in [0, 1], or the labels not one class for each.
      InputError: if the network does not return logits and a mapping, or its variables are a mapping other than a dict,
        or trained ones are of another precision than the images, or that is float16, or random crops with that padding
        may show nothing of an image.

    Example:
      >>> def apply_fn(params, x, *, train):
      ...     return x.mean((1, 2)) @ params["w"], {}
      >>> begun = begin(apply_fn, {"w": jnp.eye(3)}, jnp.zeros((2, 4, 4, 3)), jnp.array([0, 2]))
      >>> begun.classes, begun.dtype.name
      (3, 'float32')
    """
    check_images_and_labels(images, labels)
    check_crops(crop_padding, images.shape)
    if isinstance(variables, Mapping) and type(variables) is not dict:
        raise InputError(
            f"variables is a {type(variables).__name__} and has to be a dict; give flax.core.unfreeze(variables), or "
            '{"params": what is trained, "batch_stats": running statistics}, each a dict.'
        )
    _check_leaves(variables)
    variables = jax.tree.map(jnp.asarray, variables)
    classes, aux = _answer(apply_fn, variables, images)
    check_classes(labels, classes)
    params, rest = partition(variables, trainable_mask(variables))
    dtype = jax.dtypes.canonicalize_dtype(images.dtype)
    if dtype == jnp.float16:
        raise InputError(
            "The images are float16, in which squares of gradients are zero or infinite; convert images and variables "
            "to float32, or to bfloat16."
        )
    for name, leaf in named_leaves(params).items():
        if leaf.dtype != dtype:
            raise InputError(
                f"{name} has the dtype {leaf.dtype} and the images have {dtype}; convert the variables or the images, "
                "best of all to float32."
            )
    return Begun(variables, params, rest, classes, dtype, aux)


def _check_leaves(variables: Variables) -> None:
    """Refuses variables that are no arrays, or not finite; traced ones pass."""
    for name, leaf in named_leaves(variables).items():
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float):
            raise InputError(
                f"{name} of the variables is a {type(leaf).__name__} and has to be an array; keep what is no array in "
                "apply_fn."
            )
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(variables)):
        return
    with jax.ensure_compile_time_eval():
        wrong = (
            []
            if all_finite(variables)
            else [name for name, leaf in named_leaves(variables).items() if not all_finite(leaf)]
        )
    if wrong:
        raise InputError(
            f"{wrong[0]} of the variables holds NaN or infinity; give those of a working network."
        )


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
    variance (``var``) no more than its rounding can be negative: it is 0 then. That b does not depend on any r is taken
    for granted: it would behind a frozen layer, which uses running statistics in training mode.

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
    if not (isinstance(rest, Mapping) and "batch_stats" in rest):
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


def check_features(answer: Mapping[str, Any], width: int) -> None:
    """Refuses a network that does not return what its last layer reads.

    Args:
      answer: shapes of what it returns beside the logits (``Begun.aux``).
      width: of the features that the layer reads.

    Raises:
      InputError: unless its ``features`` have the shape (1, width).
    """
    shape = getattr(answer["features"], "shape", ()) if "features" in answer else None
    if shape != (1, width):
        found = "no features" if shape is None else f"features of shape {shape}"
        raise InputError(
            f"apply_fn returns {found} for one image and has to return aux['features'], which the last layer reads, of "
            f"shape {(1, width)}."
        )


def _answer(apply_fn: ApplyFn, variables: Variables, images: AnyImages) -> tuple[int, Mapping[str, Any]]:
    """How many classes a network tells apart, and the shapes of what it returns beside the logits, for one image.

    Nothing is computed.

    Raises:
      InputError: if it does not return logits, a row for every image, and a mapping.
    """
    example = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    answer: Any = jax.eval_shape(functools.partial(apply_fn, train=False), variables, example)
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Mapping)):
        found = "only an array"
        if isinstance(answer, tuple):
            found = f"{len(answer)} things" if len(answer) != 2 else f"(logits, {answer[1]!r})"
        raise InputError(
            f"apply_fn returns {found} and has to return (logits, aux), aux being a mapping such as {{}}; wrap it in a "
            "function that does."
        )
    shape: tuple[int, ...] = getattr(answer[0], "shape", ())
    if len(shape) != 2 or shape[0] != 1:
        raise InputError(
            f"apply_fn returns logits of shape {shape} for one image and has to return (1, classes); flatten them."
        )
    return shape[1], answer[1]
