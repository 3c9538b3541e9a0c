"""What a model knows, as it answers to mixtures of a few images: far more than their labels tell."""

import jax
import jax.numpy as jnp

from jaxunlearn._typing import ApplyFn, Images, PRNGKey, Probabilities, Variables


def mixtures(
    apply_fn: ApplyFn, variables: Variables, images: Images, key: PRNGKey
) -> tuple[jax.Array, Probabilities]:
    """Random mixtures of two images each, and what a model answers to them.

    lambda_i x_i + (1 - lambda_i) x_j(i) with lambda_i uniform in [0, 1] and j a random permutation, and the softmax of
    the model's logits: another model that learns these learns what the first one does between and around the images.
    Mixtures of clean images show no trigger, so that a backdoor is not among what is learned.

    Args:
      apply_fn: the network.
      variables: of the model that answers, in evaluation mode.
      images: clean images, in [0, 1].
      key: of the random choices.

    Returns:
      As many mixtures, and probabilities of the shape (n, classes), both constants.

    Source: Hinton et al., "Distilling the knowledge in a neural network", 2015, arXiv:1503.02531, with images as in
      Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018; mixtures for distillation: Beyer et al.,
      "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)), {})
      >>> mixed, answers = mixtures(apply_fn, {}, jnp.full((4, 2, 2, 3), 0.5), jax.random.key(0))
      >>> mixed.shape, answers[0].round(3).tolist()
      ((4, 2, 2, 3), [0.3330000042915344, 0.3330000042915344, 0.3330000042915344])
    """
    share_key, partner_key = jax.random.split(key)
    images = jnp.asarray(images)
    share = jax.random.uniform(share_key, (len(images), 1, 1, 1), images.dtype)
    mixed = share * images + (1 - share) * jax.random.permutation(partner_key, images)
    logits, _ = apply_fn(variables, mixed, train=False)
    return mixed, jax.lax.stop_gradient(jax.nn.softmax(logits))
