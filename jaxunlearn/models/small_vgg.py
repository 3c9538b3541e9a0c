"""The small VGG of the checkpoints that were published with I-BAU.

Source: github.com/YiZeng623/I-BAU, models.py (``small_VGG16``): three stages of two 3x3 convolutions with
batch normalisation and ELU, each stage closed by 2x2 max-pooling and dropout, then one linear layer.
"""

import flax.linen as nn
import jax.numpy as jnp

from jaxunlearn._check import InputError
from jaxunlearn._typing import Images
from jaxunlearn.models.layers import Answer, BatchNorm, Conv, conv_norm, flatten_chw, max_pool
from jaxunlearn.models.spec import ModelSpec

# Each stage is conv, norm, ELU, conv, norm, ELU, pool, dropout; a convolution's norm follows it directly.
CONVOLUTIONS = (0, 3, 8, 11, 16, 19)

_SHRINKING = 8  # three poolings, each of which drops an odd last row and column

HALF = (16, 32, 64)
"""Half the usual channels: a third of the time."""


class SmallVGG(nn.Module):
    """Three stages of (convolution, batch norm, ELU) twice, max-pooling and dropout, then a linear layer.

    Attributes:
      classes: number of logits.
      widths: channels of the three stages.
      dropout: rates that close the stages; active in training only.
    """

    classes: int
    widths: tuple[int, ...] = (32, 64, 128)
    dropout: tuple[float, ...] = (0.3, 0.4, 0.4)

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Answer:
        """Returns logits and the flattened activations that the linear layer reads."""
        x = jnp.asarray(images)
        for index, position in enumerate(CONVOLUTIONS):
            stage, second = divmod(index, 2)
            conv = Conv(self.widths[stage], use_bias=True, name=f"features.{position}")
            norm = BatchNorm(self.widths[stage], name=f"features.{position + 1}")
            x = nn.elu(conv_norm(conv, norm, x, train=train))
            if second:
                x = nn.Dropout(self.dropout[stage], deterministic=not train)(max_pool(x))
        features = flatten_chw(x)
        return nn.Dense(self.classes, name="classifier")(features), features


def small_vgg(
    classes: int,
    image_shape: tuple[int, int, int] = (32, 32, 3),
    widths: tuple[int, ...] = (32, 64, 128),
) -> ModelSpec:
    """The spec of a small VGG; ``small_vgg_half`` is its name with ``HALF`` as widths.

    Raises:
      InputError: if a file could not show the size of the images, which then are not square, or are too small.

    Example:
      >>> small_vgg(10).image_shape
      (32, 32, 3)
    """
    height, width, _ = image_shape
    left = height // _SHRINKING
    if left == 0 or left != width // _SHRINKING:
        raise InputError(
            f"A small VGG takes square images of at least {_SHRINKING}x{_SHRINKING}, and these are {height}x{width}; "
            "bring them to another size with --size N, such as 32, or take another network."
        )
    least = _SHRINKING * left
    return ModelSpec(
        "small_vgg_half" if widths == HALF else "small_vgg",
        "small_vgg",
        SmallVGG(classes, widths),
        image_shape,
        classes,
        head="classifier",
        step=_SHRINKING,
        assumed=("activation ELU", f"square images of {least} to {least + _SHRINKING - 1} pixels a side"),
    )
