"""The small VGG of the checkpoints that were published with I-BAU.

Source: github.com/YiZeng623/I-BAU, models.py (``small_VGG16``): three stages of two 3x3 convolutions with
batch normalisation and ELU, each stage closed by 2x2 max-pooling and dropout, then one linear layer.
"""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from jaxunlearn.models.layers import BatchNorm, Conv, conv_norm, flatten_chw, max_pool_2x2
from jaxunlearn.models.spec import ModelSpec


class SmallVGG(nn.Module):
    """Three stages of (convolution, batch norm, ELU) twice, max-pooling and dropout, then a linear layer.

    Attributes:
      classes: number of logits.
      widths: channels of the three stages.
      dropout: rates that close the stages; active in training only.
    """

    classes: int
    widths: Sequence[int] = (32, 64, 128)
    dropout: Sequence[float] = (0.3, 0.4, 0.4)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], *, train: bool
    ) -> tuple[Float[Array, "n classes"], Float[Array, "n d"]]:
        """Returns logits and the flattened activations that the linear layer reads."""
        x = images
        for stage, (width, rate) in enumerate(zip(self.widths, self.dropout, strict=True)):
            for half in range(2):
                index = 2 * stage + half
                conv, norm = Conv(width, name=f"conv{index}"), BatchNorm(width, name=f"bn{index}")
                x = nn.elu(conv_norm(conv, norm, x, train=train))
            x = max_pool_2x2(x)
            x = nn.Dropout(rate, deterministic=not train, name=f"dropout{stage}")(x)
        features = flatten_chw(x)
        return nn.Dense(self.classes, name="classifier")(features), features


def small_vgg(
    classes: int,
    image_shape: tuple[int, int, int] = (32, 32, 3),
    widths: tuple[int, ...] = (32, 64, 128),
) -> ModelSpec:
    """The spec of a small VGG.

    Example:
      >>> small_vgg(10).image_shape
      (32, 32, 3)
    """
    return ModelSpec("small_vgg", SmallVGG(classes, widths), image_shape, classes, head="classifier")
