"""ConvNeXt: depthwise 7x7 convolutions with the habits of transformers.

Source: Liu et al., A ConvNet for the 2020s (2022), as in torchvision.
"""

import flax.linen as nn

from jaxunlearn._typing import Images
from jaxunlearn.models.convolution import Activations
from jaxunlearn.models.layers import Answer, Conv, StochasticDepth, gelu, global_avg_pool, layer_norm
from jaxunlearn.models.spec import ImageShape, ModelSpec


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layer norm, two linear layers with GELU between them, scaled, added to the input.

    Attributes:
      drop: rate of leaving the branch out while training.
    """

    drop: float

    @nn.compact
    def __call__(self, x: Activations, *, train: bool) -> Activations:
        """Applies the block."""
        width = x.shape[-1]
        y = Conv(width, 7, groups=width, use_bias=True, name="block.0")(x)
        y = layer_norm("block.2")(y)
        y = nn.Dense(width, name="block.5")(gelu(nn.Dense(4 * width, name="block.3")(y)))
        y = y * self.param("layer_scale", nn.initializers.constant(1e-6), (width, 1, 1))[:, 0, 0]
        return x + StochasticDepth(self.drop)(y, train=train)


class ConvNeXt(nn.Module):
    """A 4x4 stem, stages of blocks with halving layers between them, a mean, a norm, a linear layer.

    Attributes:
      classes: number of logits.
      blocks: per stage.
      widths: channels per stage.
      drop: rate of leaving the last block out while training; earlier ones in proportion to their depth.
    """

    classes: int
    blocks: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    drop: float = 0.1

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Answer:
        """Returns logits and the normalised means that the linear layer reads."""
        stem = Conv(self.widths[0], 4, 4, padding=0, use_bias=True, name="features.0.0")
        x = layer_norm("features.0.1")(stem(images))
        done, last = 0, max(1, sum(self.blocks) - 1)
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            if stage:
                x = layer_norm(f"features.{2 * stage}.0")(x)
                x = Conv(width, 2, 2, padding=0, use_bias=True, name=f"features.{2 * stage}.1")(x)
            for block in range(blocks):
                name = f"features.{2 * stage + 1}.{block}"
                x = ConvNeXtBlock(self.drop * done / last, name=name)(x, train=train)
                done += 1
        features = layer_norm("classifier.0")(global_avg_pool(x))
        return nn.Dense(self.classes, name="classifier.2")(features), features


_SIZES = {(96, 18): "tiny", (96, 36): "small", (128, 36): "base", (192, 36): "large"}


def convnext(module: ConvNeXt, image_shape: ImageShape) -> ModelSpec:
    """The spec of a ConvNeXt."""
    size = _SIZES.get((module.widths[0], sum(module.blocks)), "custom")
    return ModelSpec(
        f"convnext_{size}",
        "convnext",
        module,
        image_shape,
        module.classes,
        head="classifier.2",
        any_size=True,
        assumed=("exact GELU", "layer-norm eps 1e-6"),
    )
