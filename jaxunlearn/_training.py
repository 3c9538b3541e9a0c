"""The forward pass of training: batch statistics move, dropout draws."""

import inspect

import jax

from jaxunlearn._typing import ApplyFn, Images, PRNGKey, Variables


def training_forward(
    apply_fn: ApplyFn, variables: Variables, images: Images, key: PRNGKey
) -> tuple[jax.Array, Variables]:
    """Applies a network as in training.

    Dropout is drawn with ``key`` by a network that accepts ``rngs`` (``ModelSpec.apply`` does); another
    network gets no ``rngs`` and has to do without.

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
    takes_rngs = "rngs" in inspect.signature(apply_fn).parameters
    keywords = {"rngs": {"dropout": key}} if takes_rngs else {}
    logits, aux = apply_fn(variables, images, train=True, **keywords)  # type: ignore[arg-type]
    if "batch_stats" not in aux:
        return logits, variables
    return logits, {**variables, "batch_stats": aux["batch_stats"]}
