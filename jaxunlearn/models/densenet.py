"""Densely connected networks.

Source: Huang et al., Densely Connected Convolutional Networks (2017), as in torchvision.
"""

import flax.linen as nn
import jax.numpy as jnp

from jaxunlearn._typing import Images
from jaxunlearn.models.convolution import Activations
from jaxunlearn.models.layers import (
    Answer,
    BatchNorm,
    Conv,
    avg_pool_2x2,
    conv_norm,
    global_avg_pool,
    max_pool,
)
from jaxunlearn.models.spec import ImageShape, ModelSpec


class DenseLayer(nn.Module):
    """Normalisation, ReLU, 1x1 and 3x3 convolution; its result is appended to its input.

    Attributes:
      growth: channels that it appends.
      width: channels between its convolutions.
      dropout: rate on what it appends.
    """

    growth: int
    width: int
    dropout: float

    @nn.compact
    def __call__(self, x: Activations, *, train: bool) -> Activations:
        """The input with the new channels behind it."""
        y = nn.relu(BatchNorm(x.shape[-1], name="norm1")(x, train=train))
        conv = Conv(self.width, 1, name="conv1")
        y = nn.relu(conv_norm(conv, BatchNorm(self.width, name="norm2"), y, train=train))
        y = nn.Dropout(self.dropout, deterministic=not train)(Conv(self.growth, name="conv2")(y))
        return jnp.concatenate([x, y], axis=-1)


class DenseNet(nn.Module):
    """An ImageNet stem, dense blocks with halving transitions between them, a mean, a linear layer.

    Attributes:
      classes: number of logits.
      layers: per block.
      stem: channels of the first convolution.
      growth: channels that each layer appends.
      width: channels inside a layer.
      transitions: channels after each transition.
      dropout: rate inside the layers.
    """

    classes: int
    layers: tuple[int, ...] = (6, 12, 24, 16)
    stem: int = 64
    growth: int = 32
    width: int = 128
    transitions: tuple[int, ...] = (128, 256, 512)
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Answer:
        """Returns logits and the means that the linear layer reads."""
        conv = Conv(self.stem, 7, 2, name="features.conv0")
        norm = BatchNorm(self.stem, name="features.norm0")
        x = max_pool(nn.relu(conv_norm(conv, norm, images, train=train)), 3, 2, 1)
        for block, layers in enumerate(self.layers, 1):
            for layer in range(1, layers + 1):
                name = f"features.denseblock{block}.denselayer{layer}"
                x = DenseLayer(self.growth, self.width, self.dropout, name=name)(x, train=train)
            if block < len(self.layers):
                name = f"features.transition{block}"
                x = nn.relu(BatchNorm(x.shape[-1], name=f"{name}.norm")(x, train=train))
                # PyTorch pools after the convolution; the two commute, and this way costs a quarter.
                x = Conv(self.transitions[block - 1], 1, name=f"{name}.conv")(avg_pool_2x2(x))
        x = nn.relu(BatchNorm(x.shape[-1], name="features.norm5")(x, train=train))
        features = global_avg_pool(x)
        return nn.Dense(self.classes, name="classifier")(features), features


def densenet(module: DenseNet, image_shape: ImageShape) -> ModelSpec:
    """The spec of a DenseNet."""
    depth = 2 * sum(module.layers) + len(module.layers) + 1
    return ModelSpec(
        f"densenet{depth}",
        "densenet",
        module,
        image_shape,
        module.classes,
        head="classifier",
        any_size=True,
        assumed=("batch-norm eps 1e-5", "no dropout"),
    )
