"""Supervised training from scratch: the models that attacks poison. It is fine-tuning of fresh variables."""

import dataclasses
from typing import Any

import jax

from jaxunlearn import finetune
from jaxunlearn._loop import Execution
from jaxunlearn._typing import AnyImages, ApplyFn, Labels, PRNGKey, Variables

TRAINING = finetune.Config(
    rounds=20, batch_size=128, schedule="onecycle", learning_rate=0.05, weight_decay=5e-4, nesterov=True
)
"""Settings for small networks: SGD with Nesterov's momentum, and one cycle of the learning rate."""

_OF_FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "nesterov": False},
}
_LEAST_SIDE_FOR_CROPS = 8
_LEAST_STEPS = 20  # of an epoch, as far as batches of ten allow


def training_for(image_shape: tuple[int, int, int], images: int, family: str = "") -> finetune.Config:
    """``TRAINING`` for a data set and a ``ModelSpec``'s family of networks.

    Crops are by an eighth of the images' shorter side, and batches leave a few steps. Transformers (``vit``), which SGD
    hardly trains, get AdamW at 0.001 with a weight decay of 0.05.

    Example:
      >>> config = training_for((32, 32, 3), 1000, "vit")
      >>> config.crop_padding, config.batch_size, config.optimizer
      (4, 50, 'adamw')
    """
    side = min(image_shape[:2])
    return dataclasses.replace(
        TRAINING,
        **_OF_FAMILIES.get(family, {}),
        crop_padding=side // 8 if side > _LEAST_SIDE_FOR_CROPS else 0,
        batch_size=min(TRAINING.batch_size, max(10, images // _LEAST_STEPS)),
    )


def fit(
    apply_fn: ApplyFn,
    variables: Variables,
    images: AnyImages,
    labels: Labels,
    config: finetune.Config = TRAINING,
    key: PRNGKey | None = None,
    *,
    execution: Execution | None = None,
) -> Variables:
    """Trains a network.

    Args:
      apply_fn: the network, as for ``finetune.unlearn``.
      variables: fresh ones, such as ``ModelSpec.init`` gives.
      images: pixels in [0, 1].
      labels: classes.
      config: how to train.
      key: of order, augmentation and dropout; ``jax.random.key(0)`` if None.
      execution: how to run.

    Returns:
      The trained variables.

    Raises:
      NonFiniteError: if an epoch gives NaN or infinite values.

    Example:
      >>> import dataclasses
      >>> import jax.numpy as jnp
      >>> apply_fn = lambda variables, x, *, train: (x.mean((1, 2)) @ variables["w"], {})
      >>> images, labels = jnp.eye(3)[jnp.arange(9) % 3][:, None, None, :], jnp.arange(9) % 3
      >>> config = dataclasses.replace(TRAINING, rounds=5, batch_size=3)
      >>> trained = fit(apply_fn, {"w": jnp.zeros((3, 3))}, images, labels, config)
      >>> jnp.argmax(trained["w"], axis=1).tolist()
      [0, 1, 2]
    """
    given = jax.random.key(0) if key is None else key
    return finetune.unlearn(apply_fn, variables, images, labels, config, given, execution=execution)[0]
