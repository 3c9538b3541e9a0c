"""How much of a backdoor comes back when a cleaned model sees a few triggered images."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxunlearn._optimizers import momentum_step
from jaxunlearn._runtime import Compiled
from jaxunlearn._training import forward_of_halves
from jaxunlearn._tree import combine, partition, trainable_mask
from jaxunlearn._typing import ApplyFn, Images, Labels, PRNGKey, Scalar, Variables
from jaxunlearn.losses import mean_cross_entropy

STEPS = 10
_LEARNING_RATE = 0.01
_MOMENTUM = 0.9


class Shown(NamedTuple):
    """Images with the classes that a model is to answer."""

    images: Images
    labels: Labels


def reactivate(
    apply_fn: ApplyFn, variables: Variables, triggered: Shown, clean: Shown, *, steps: int = STEPS
) -> Variables:
    """Fine-tunes a model on a few triggered images among clean ones: SGD at 0.01, momentum 0.9, training mode.

    Ten steps on all of them: the clean images keep their classes, without which any model would learn to answer the
    attack's class to everything. Ten steps are few: a model that has forgotten its backdoor must learn it like any
    other, and one that only hides it answers at once.

    Args:
      apply_fn: the network.
      variables: of the cleaned model.
      triggered: images with the trigger, and the class that the attack forces on each.
      clean: images that keep their classes.
      steps: of gradient descent on all of them.

    Returns:
      The variables afterwards.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)) @ variables["w"], {})
      >>> images = jnp.array([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])[:, None, None, :]
      >>> triggered, clean = Shown(images[2:], jnp.array([0])), Shown(images[:2], jnp.array([1, 0]))
      >>> after = reactivate(apply_fn, {"w": jnp.zeros((3, 2))}, triggered, clean, steps=100)
      >>> jnp.argmax(images.mean((1, 2)) @ after["w"], axis=1).tolist()
      [1, 0, 0]
    """
    params, rest = partition(jax.tree.map(jnp.asarray, variables), trainable_mask(variables))
    velocity = optax.tree.zeros_like(params)
    batch = Shown(
        *(
            jnp.concatenate([jnp.asarray(ours), jnp.asarray(theirs)])
            for ours, theirs in zip(triggered, clean, strict=True)
        )
    )
    step = _step(apply_fn)
    for key in jax.random.split(jax.random.key(0), steps):  # of dropout
        params, rest, velocity = step(params, rest, velocity, batch, key)
    return combine(params, rest)


@functools.lru_cache(maxsize=16)
def _step(apply_fn: ApplyFn) -> Compiled:
    def step(
        params: PyTree, rest: PyTree, velocity: PyTree, batch: Shown, key: PRNGKey
    ) -> tuple[PyTree, PyTree, PyTree]:
        def loss_fn(params: PyTree) -> tuple[Scalar, PyTree]:
            logits, moved = forward_of_halves(apply_fn, params, rest, batch.images, key)
            return mean_cross_entropy(logits, batch.labels, jnp.ones(len(batch.labels), bool)), moved

        gradient, moved = jax.grad(loss_fn, has_aux=True)(params)
        params, velocity = momentum_step(params, velocity, gradient, rate=_LEARNING_RATE, momentum=_MOMENTUM)
        return params, moved, velocity

    return Compiled(step)
