"""Networks of inverted residuals: MobileNetV3 and EfficientNet.

Sources: Howard et al., Searching for MobileNetV3 (2019), table 1; Tan and Le, EfficientNet (2019), table 1; names
and constants as in torchvision.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
from jaxtyping import Array

from jaxunlearn._typing import Images
from jaxunlearn.models.convolution import Activations
from jaxunlearn.models.layers import Answer, BatchNorm, Conv, StochasticDepth, conv_norm, global_avg_pool
from jaxunlearn.models.spec import ImageShape, ModelSpec

Activation = Callable[[Array], Array]


class Shape(NamedTuple):
    """The sizes of one inverted residual.

    Attributes:
      name: of its module.
      window: side of the depthwise kernel.
      stride: of the depthwise convolution.
      expanded: channels inside; as many as come in: nothing is expanded.
      squeezed: channels of the squeeze-and-excitation bottleneck; 0 for none.
      out: channels of the result.
    """

    name: str
    window: int
    stride: int
    expanded: int
    squeezed: int
    out: int


class SqueezeExcite(nn.Module):
    """Weighs the channels by what their means say.

    Attributes:
      squeezed: channels of the bottleneck.
      activation: after the first convolution.
      gate: after the second.
    """

    squeezed: int
    activation: Activation
    gate: Activation

    @nn.compact
    def __call__(self, x: Activations) -> Activations:
        """x times the weights."""
        means = global_avg_pool(x)[:, None, None]
        hidden = self.activation(Conv(self.squeezed, 1, use_bias=True, name="fc1")(means))
        return x * self.gate(Conv(x.shape[-1], 1, use_bias=True, name="fc2")(hidden))


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter each channel, weigh the channels, project back.

    Attributes:
      shape: its sizes.
      activation: after the first two convolutions.
      squeeze: activation inside the squeeze-and-excitation.
      gate: the squeeze-and-excitation's.
      drop: rate of leaving the whole branch out while training.
      momentum: of the normalisations.
      eps: of the normalisations.
    """

    shape: Shape
    activation: Activation
    squeeze: Activation
    gate: Activation
    drop: float
    momentum: float
    eps: float

    @nn.compact
    def __call__(self, x: Activations, *, train: bool) -> Activations:
        """Applies the block."""
        _, window, stride, expanded, squeezed, out = self.shape
        expands = expanded != x.shape[-1]
        convs = [
            *([Conv(expanded, 1, name="block.0.0")] if expands else []),
            Conv(expanded, window, stride, groups=expanded, name=f"block.{int(expands)}.0"),
        ]
        y = x
        for index, conv in enumerate(convs):
            y = self.activation(conv_norm(conv, self._norm(expanded, f"block.{index}.1"), y, train=train))
        index = len(convs)
        if squeezed:
            y = SqueezeExcite(squeezed, self.squeeze, self.gate, name=f"block.{index}")(y)
            index += 1
        conv, norm = Conv(out, 1, name=f"block.{index}.0"), self._norm(out, f"block.{index}.1")
        y = conv_norm(conv, norm, y, train=train)
        if stride != 1 or x.shape[-1] != out:
            return y
        return x + StochasticDepth(self.drop)(y, train=train)

    def _norm(self, channels: int, name: str) -> BatchNorm:
        return BatchNorm(channels, self.momentum, self.eps, name=name)


class MobileNetV3(nn.Module):
    """A stem, inverted residuals with ReLU first and hard-swish later, a last convolution, two linear layers.

    Attributes:
      classes: number of logits.
      shapes: of the inverted residuals.
      hard_from: number of the first inverted residual (from 0) with hard-swish in place of ReLU.
      stem: channels of the first convolution.
      last: channels of the last convolution.
      hidden: width of the first linear layer.
      dropout: rate between the linear layers.
    """

    classes: int
    shapes: tuple[Shape, ...]
    hard_from: int
    stem: int = 16
    last: int = 960
    hidden: int = 1280
    dropout: float = 0.2

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Answer:
        """Returns logits and the activations that the last linear layer reads."""
        momentum, eps = 0.01, 1e-3
        norm = BatchNorm(self.stem, momentum, eps, name="features.0.1")
        x = nn.hard_swish(conv_norm(Conv(self.stem, 3, 2, name="features.0.0"), norm, images, train=train))
        for index, shape in enumerate(self.shapes):
            activation = nn.hard_swish if index >= self.hard_from else nn.relu
            block = InvertedResidual(
                shape, activation, nn.relu, nn.hard_sigmoid, 0.0, momentum, eps, name=shape.name
            )
            x = block(x, train=train)
        name = f"features.{len(self.shapes) + 1}"
        norm = BatchNorm(self.last, momentum, eps, name=f"{name}.1")
        x = nn.hard_swish(conv_norm(Conv(self.last, 1, name=f"{name}.0"), norm, x, train=train))
        y = nn.hard_swish(nn.Dense(self.hidden, name="classifier.0")(global_avg_pool(x)))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return nn.Dense(self.classes, name="classifier.3")(y), y


class EfficientNet(nn.Module):
    """A stem, inverted residuals with SiLU, a last convolution, a linear layer.

    Attributes:
      classes: number of logits.
      shapes: of the inverted residuals.
      stem: channels of the first convolution.
      last: channels of the last convolution.
      stages: number of stages that the shapes belong to.
      dropout: rate before the linear layer.
      drop: rate of leaving out the last inverted residual; earlier ones in proportion to their depth.
      momentum: of the normalisations.
      eps: of the normalisations.
    """

    classes: int
    shapes: tuple[Shape, ...]
    stem: int = 32
    last: int = 1280
    stages: int = 7
    dropout: float = 0.2
    drop: float = 0.2
    momentum: float = 0.1
    eps: float = 1e-5

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Answer:
        """Returns logits and the means that the linear layer reads."""
        norm = BatchNorm(self.stem, self.momentum, self.eps, name="features.0.1")
        x = nn.silu(conv_norm(Conv(self.stem, 3, 2, name="features.0.0"), norm, images, train=train))
        for index, shape in enumerate(self.shapes):
            drop = self.drop * index / len(self.shapes)
            block = InvertedResidual(
                shape, nn.silu, nn.silu, jax.nn.sigmoid, drop, self.momentum, self.eps, name=shape.name
            )
            x = block(x, train=train)
        name = f"features.{self.stages + 1}"
        norm = BatchNorm(self.last, self.momentum, self.eps, name=f"{name}.1")
        x = nn.silu(conv_norm(Conv(self.last, 1, name=f"{name}.0"), norm, x, train=train))
        features = global_avg_pool(x)
        kept = nn.Dropout(self.dropout, deterministic=not train)(features)
        return nn.Dense(self.classes, name="classifier.1")(kept), kept


def mobilenet_v3(module: MobileNetV3, image_shape: ImageShape) -> ModelSpec:
    """The spec of a MobileNetV3."""
    return ModelSpec(
        "mobilenet_v3_" + ("large" if len(module.shapes) == 15 else "small"),
        "mobilenet_v3",
        module,
        image_shape,
        module.classes,
        head="classifier.3",
        any_size=True,
        assumed=("strides and activations of the paper's table", "batch-norm eps 1e-3"),
    )


# The number in the name, by (inverted residuals, last channels).
_EFFICIENTNETS = {
    (16, 1280): 0,
    (23, 1280): 1,
    (23, 1408): 2,
    (26, 1536): 3,
    (32, 1792): 4,
    (39, 2048): 5,
    (45, 2304): 6,
    (55, 2560): 7,
}


def efficientnet(module: EfficientNet, image_shape: ImageShape) -> ModelSpec:
    """The spec of an EfficientNet."""
    number = _EFFICIENTNETS.get((len(module.shapes), module.last), "")
    return ModelSpec(
        f"efficientnet_b{number}",
        "efficientnet",
        module,
        image_shape,
        module.classes,
        head="classifier.1",
        any_size=True,
        assumed=("strides of the paper's table", "activation SiLU", f"batch-norm eps {module.eps:g}"),
    )
