"""Plain stacks of 3x3 convolutions.

Source: Simonyan and Zisserman, Very Deep Convolutional Networks (2015), as in torchvision.
"""

import flax.linen as nn
import jax.numpy as jnp

from jaxunlearn._typing import Images
from jaxunlearn.models.layers import (
    Answer,
    BatchNorm,
    Conv,
    adaptive_avg_pool,
    conv_norm,
    flatten_chw,
    max_pool,
)
from jaxunlearn.models.spec import ImageShape, ModelSpec


class VGG(nn.Module):
    """3x3 convolutions with ReLU and 2x2 max-poolings, then linear layers.

    Attributes:
      classes: number of logits.
      stages: channels of the convolutions between two poolings.
      batch_norm: whether convolutions are normalised.
      side: that the last activations are pooled to.
      hidden: widths of the linear layers before the last one.
      linears: names of all linear layers.
      dropout: rate between the linear layers.
    """

    classes: int
    stages: tuple[tuple[int, ...], ...]
    batch_norm: bool
    side: int = 7
    hidden: tuple[int, ...] = (4096, 4096)
    linears: tuple[str, ...] = ("classifier.0", "classifier.3", "classifier.6")
    dropout: float = 0.5

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Answer:
        """Returns logits and the activations that the last linear layer reads."""
        x, position = jnp.asarray(images), 0
        for widths in self.stages:
            for width in widths:
                conv = Conv(width, use_bias=True, name=f"features.{position}")
                if self.batch_norm:
                    x = conv_norm(conv, BatchNorm(width, name=f"features.{position + 1}"), x, train=train)
                else:
                    x = conv(x)
                x = nn.relu(x)
                position += 3 if self.batch_norm else 2
            x = max_pool(x)
            position += 1
        y = flatten_chw(adaptive_avg_pool(x, self.side))
        for width, name in zip(self.hidden, self.linears[:-1], strict=True):
            y = nn.relu(nn.Dense(width, name=name)(y))
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return nn.Dense(self.classes, name=self.linears[-1])(y), y


def vgg(module: VGG, image_shape: ImageShape) -> ModelSpec:
    """The spec of a VGG."""
    depth = sum(map(len, module.stages)) + len(module.linears)
    return ModelSpec(
        f"vgg{depth}" + ("_bn" if module.batch_norm else ""),
        "vgg",
        module,
        image_shape,
        module.classes,
        module.linears[-1],
        any_size=True,
        assumed=("activation ReLU", f"adaptive pooling to {module.side}x{module.side}"),
    )
