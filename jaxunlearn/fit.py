"""Plain supervised training: the models that attacks poison."""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxunlearn import _loop
from jaxunlearn._loop import Batch, Data, Execution, Pass, Rows
from jaxunlearn._training import training_forward
from jaxunlearn._typing import ApplyFn, Images, Labels, PRNGKey, Scalar, Variables
from jaxunlearn.losses import mean_cross_entropy


def fit(
    apply_fn: ApplyFn,
    variables: Variables,
    images: Images,
    labels: Labels,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    key: PRNGKey,
    execution: Execution | None = None,
) -> Variables:
    """Trains a network with SGD, Nesterov momentum 0.9 and a one-cycle learning rate.

    Args:
      apply_fn: the network; called with ``train=True``, it returns new ``batch_stats``.
      variables: ``{"params": ..., "batch_stats": ...}``, changed in training.
      images: pixels in [0, 1].
      labels: classes.
      epochs: passes over the images, each in a new order; a last, smaller batch is left out of an epoch,
        because batch statistics must not see padding.
      batch_size: images per step; at most all images.
      learning_rate: the highest of the cycle.
      weight_decay: coefficient of the l2 penalty's gradient.
      key: of order and dropout.
      execution: how to run.

    Returns:
      The trained variables.
    """
    data = Data(images, labels)
    execution = execution or Execution()
    size = min(batch_size, len(labels))
    batches = len(labels) // size
    rate = optax.schedules.cosine_onecycle_schedule(epochs * batches, learning_rate, pct_start=0.3)
    one_epoch = _epoch(apply_fn)
    carry = (variables, _direction(weight_decay).init(variables["params"]))
    for epoch in range(epochs):
        order_key, dropout_key = jax.random.split(jax.random.fold_in(key, epoch))
        rows = _loop.batch_rows(len(labels), size, order_key, whole=True)
        rates = jnp.asarray([rate(epoch * batches + batch) for batch in range(batches)])
        xs = (rows, jax.random.split(dropout_key, batches), rates)
        carry, _ = one_epoch(weight_decay, carry, xs, data, execution)
    return carry[0]


def _direction(weight_decay: float | jax.Array) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.trace(0.9, nesterov=True))


@functools.lru_cache(maxsize=16)
def _epoch(apply_fn: ApplyFn) -> Pass:
    return Pass(functools.partial(_train_step, apply_fn), _fetch)


def _fetch(data: Data, x: tuple[Rows, PRNGKey, Scalar]) -> tuple[Batch, PRNGKey, Scalar]:
    rows, key, rate = x
    return data.gather(rows), key, rate


def _train_step(
    apply_fn: ApplyFn, weight_decay: Scalar, carry: PyTree, x: tuple[Batch, PRNGKey, Scalar]
) -> tuple[PyTree, Scalar]:
    variables, optimizer = carry
    batch, key, rate = x

    def loss_fn(params: PyTree) -> tuple[Scalar, Variables]:
        logits, moved = training_forward(apply_fn, {**variables, "params": params}, batch.images, key)
        return mean_cross_entropy(logits, batch.labels, batch.mask), moved

    params = variables["params"]
    (loss, moved), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
    directions, optimizer = _direction(weight_decay).update(gradient, optimizer, params)
    params = jax.tree.map(lambda p, d: p - rate * d, params, directions)
    return ({**moved, "params": params}, optimizer), loss
