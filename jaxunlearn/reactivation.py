"""How much of a backdoor comes back when a cleaned model sees a few triggered images."""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxunlearn._optimizers import momentum_step
from jaxunlearn._runtime import Compiled
from jaxunlearn._tree import combine, partition, trainable_mask
from jaxunlearn._typing import ApplyFn, Images, Labels, Scalar, Variables
from jaxunlearn.losses import mean_cross_entropy

STEPS = 10
_LEARNING_RATE = 0.01
_MOMENTUM = 0.9


def reactivate(
    apply_fn: ApplyFn, variables: Variables, images: Images, labels: Labels, *, steps: int = STEPS
) -> Variables:
    """Fine-tunes a model on triggered images with the attack's labels: SGD at 0.01, momentum 0.9, evaluation mode.

    A model that has forgotten its backdoor learns it like any other; one that only hides it answers at once.

    Args:
      apply_fn: the network.
      variables: of the cleaned model.
      images: with the trigger.
      labels: the class that the attack forces on each.
      steps: of gradient descent on all of them.

    Returns:
      The variables afterwards.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)) @ variables["w"], {})
      >>> images, labels = jnp.ones((5, 2, 2, 2)), jnp.ones(5, int)
      >>> after = reactivate(apply_fn, {"w": jnp.eye(2)}, images, labels)
      >>> bool(after["w"][0, 1] > 0)
      True
    """
    params, frozen = partition(jax.tree.map(jnp.asarray, variables), trainable_mask(variables))
    velocity = optax.tree.zeros_like(params)
    step = _step(apply_fn)
    for _ in range(steps):
        params, velocity = step(params, velocity, frozen, jnp.asarray(images), jnp.asarray(labels))
    return combine(params, frozen)


@functools.lru_cache(maxsize=16)
def _step(apply_fn: ApplyFn) -> Compiled:
    def step(
        params: PyTree, velocity: PyTree, frozen: PyTree, images: Images, labels: Labels
    ) -> tuple[PyTree, PyTree]:
        def loss_fn(theta: PyTree) -> Scalar:
            logits, _ = apply_fn(combine(theta, frozen), images, train=False)
            return mean_cross_entropy(logits, labels, jnp.ones(len(labels), bool))

        gradient = jax.grad(loss_fn)(params)
        return momentum_step(params, velocity, gradient, rate=_LEARNING_RATE, momentum=_MOMENTUM)

    return Compiled(step)
