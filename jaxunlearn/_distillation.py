"""What a model knows, as it answers to mixtures of a few images: far more than their labels tell."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxunlearn._typing import ApplyFn, Images, Labels, PRNGKey, Probabilities, Variables
from jaxunlearn.losses import as_integers


def mixtures(
    apply_fn: ApplyFn,
    variables: Variables,
    images: Images,
    labels: Labels,
    key: PRNGKey,
    *,
    withheld: Bool[Array, " classes"] | bool = False,
) -> tuple[jax.Array, Probabilities]:
    """Random mixtures of two images each, and what a model answers to them.

    lambda_i x_i + (1 - lambda_i) x_j(i) with lambda_i uniform in [0, 1] and j a random permutation, and the softmax of
    the model's logits: another model that learns these learns what the first one does between and around the images.
    Mixtures of clean images show no trigger, but some are answered with its class all the same. So a class may be
    withheld: its logit is left out where neither image is of it.

    Args:
      apply_fn: the network.
      variables: of the model that answers, in evaluation mode.
      images: clean images, in [0, 1].
      labels: their true classes.
      key: of the random choices.
      withheld: which classes are.

    Returns:
      As many mixtures, and probabilities of the shape (n, classes), both constants.

    Source: Hinton et al., "Distilling the knowledge in a neural network", 2015, arXiv:1503.02531, with images as in
      Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018; mixtures for distillation: Beyer et al.,
      "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022.

    Example:
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)), {})
      >>> images, labels, withheld = jnp.full((4, 2, 2, 3), 0.5), jnp.zeros(4, int), jnp.array([True, True, False])
      >>> mixed, answers = mixtures(apply_fn, {}, images, labels, jax.random.key(0), withheld=withheld)
      >>> mixed.shape, answers[0].round(3).tolist()
      ((4, 2, 2, 3), [0.5, 0.0, 0.5])
    """
    share_key, partner_key = jax.random.split(key)
    images = jnp.asarray(images)
    share = jax.random.uniform(share_key, (len(images), 1, 1, 1), images.dtype)
    partners = jax.random.permutation(partner_key, len(images))
    mixed = share * images + (1 - share) * images[partners]
    logits, _ = apply_fn(variables, mixed, train=False)
    own = jax.nn.one_hot(as_integers(labels), logits.shape[1], dtype=bool)
    believed = own | own[partners] | ~jnp.asarray(withheld)
    return mixed, jax.lax.stop_gradient(jax.nn.softmax(jnp.where(believed, logits, -jnp.inf)))
