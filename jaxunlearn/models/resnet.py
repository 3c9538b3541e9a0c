"""Residual networks: torchvision's, the CIFAR variants, pre-activation ones, and wide ones.

Sources: He et al., Deep Residual Learning (2016), with the stride in the 3x3 convolution of a bottleneck as in
torchvision; He et al., Identity Mappings (2016); Zagoruyko and Komodakis, Wide Residual Networks (2016).
"""

import flax.linen as nn

from jaxunlearn._typing import Images
from jaxunlearn.models.convolution import Activations
from jaxunlearn.models.layers import Answer, BatchNorm, Conv, conv_norm, global_avg_pool, max_pool
from jaxunlearn.models.spec import ImageShape, ModelSpec


def _convolutions(width: int, out: int, stride: int, bottleneck: bool, groups: int = 1) -> list[Conv]:
    """The convolutions of a block: two 3x3, or 1x1, 3x3, 1x1."""
    if not bottleneck:
        return [Conv(width, 3, stride, name="conv1"), Conv(out, 3, name="conv2")]
    return [
        Conv(width, 1, name="conv1"),
        Conv(width, 3, stride, groups=groups, name="conv2"),
        Conv(out, 1, name="conv3"),
    ]


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 (bottleneck), each normalised, around a shortcut.

    Attributes:
      width: channels inside.
      out: channels of the result.
      stride: of the 3x3 convolution that changes the size.
      bottleneck: whether there are three convolutions.
      groups: of the 3x3 convolution in a bottleneck.
      shortcut: name of the shortcut's convolution and normalisation; without it the input is added as it is.
    """

    width: int
    out: int
    stride: int
    bottleneck: bool
    groups: int
    shortcut: str | None

    @nn.compact
    def __call__(self, x: Activations, *, train: bool) -> Activations:
        """Applies the block."""
        convs = _convolutions(self.width, self.out, self.stride, self.bottleneck, self.groups)
        y = x
        for number, conv in enumerate(convs, 1):
            y = nn.relu(y) if number > 1 else y
            y = conv_norm(conv, BatchNorm(conv.features, name=f"bn{number}"), y, train=train)
        if self.shortcut is not None:
            conv = Conv(self.out, 1, self.stride, name=f"{self.shortcut}.0")
            x = conv_norm(conv, BatchNorm(self.out, name=f"{self.shortcut}.1"), x, train=train)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A stem, stages of blocks, a mean over the image, a linear layer.

    Attributes:
      classes: number of logits.
      blocks: per stage; the first block of every stage but the first halves the size.
      widths: channels inside the blocks, per stage.
      outs: channels between the blocks, per stage.
      bottleneck: whether blocks have three convolutions.
      groups: of the 3x3 convolutions in bottlenecks.
      stem: channels of the first convolution.
      stem_window: its side; 7 stands for the ImageNet stem: stride 2 and a max-pooling.
      shortcut: name of the shortcuts.
      head: name of the linear layer.
    """

    classes: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    outs: tuple[int, ...]
    bottleneck: bool
    groups: int = 1
    stem: int = 64
    stem_window: int = 7
    shortcut: str = "downsample"
    head: str = "fc"

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Answer:
        """Returns logits and the means that the linear layer reads."""
        for_imagenet = self.stem_window == 7
        conv = Conv(self.stem, self.stem_window, 2 if for_imagenet else 1, name="conv1")
        x = nn.relu(conv_norm(conv, BatchNorm(self.stem, name="bn1"), images, train=train))
        x = max_pool(x, 3, 2, 1) if for_imagenet else x
        for stage, (blocks, width, out) in enumerate(zip(self.blocks, self.widths, self.outs, strict=True)):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                shortcut = self.shortcut if stride != 1 or x.shape[-1] != out else None
                name = f"layer{stage + 1}.{block}"
                x = Block(width, out, stride, self.bottleneck, self.groups, shortcut, name=name)(
                    x, train=train
                )
        features = global_avg_pool(x)
        return nn.Dense(self.classes, name=self.head)(features), features


class PreActBlock(nn.Module):
    """Normalisation and ReLU before each convolution; a projecting shortcut starts after the first ReLU.

    Attributes:
      width: channels inside.
      out: channels of the result.
      stride: of the 3x3 convolution that changes the size.
      bottleneck: whether there are three convolutions.
    """

    width: int
    out: int
    stride: int
    bottleneck: bool

    @nn.compact
    def __call__(self, x: Activations, *, train: bool) -> Activations:
        """Applies the block."""
        convs = _convolutions(self.width, self.out, self.stride, self.bottleneck)
        y = nn.relu(BatchNorm(x.shape[-1], name="bn1")(x, train=train))
        if self.stride != 1 or x.shape[-1] != self.out:
            x = Conv(self.out, 1, self.stride, name="shortcut.0")(y)
        for number, conv in enumerate(convs[:-1], 2):
            y = nn.relu(conv_norm(conv, BatchNorm(conv.features, name=f"bn{number}"), y, train=train))
        return x + convs[-1](y)


class PreActResNet(nn.Module):
    """A 3x3 convolution, stages of pre-activation blocks, a mean without a last normalisation, a linear layer.

    Attributes:
      classes: number of logits.
      blocks: per stage; the first block of every stage but the first halves the size.
      widths: channels inside the blocks, per stage.
      outs: channels between the blocks, per stage.
      bottleneck: whether blocks have three convolutions.
      stem: channels of the first convolution.
    """

    classes: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    outs: tuple[int, ...]
    bottleneck: bool
    stem: int = 64

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Answer:
        """Returns logits and the means that the linear layer reads."""
        x = Conv(self.stem, name="conv1")(images)
        for stage, (blocks, width, out) in enumerate(zip(self.blocks, self.widths, self.outs, strict=True)):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                name = f"layer{stage + 1}.{block}"
                x = PreActBlock(width, out, stride, self.bottleneck, name=name)(x, train=train)
        features = global_avg_pool(x)
        return nn.Dense(self.classes, name="linear")(features), features


class WideBlock(nn.Module):
    """The block of wide residual networks: like a pre-activation one, with its own names.

    Where the channels change, the first ReLU comes before both branches; elsewhere the input is added as it is.

    Attributes:
      out: channels of the result.
      stride: of the first convolution.
      dropout: rate between the convolutions.
    """

    out: int
    stride: int
    dropout: float

    @nn.compact
    def __call__(self, x: Activations, *, train: bool) -> Activations:
        """Applies the block."""
        y = nn.relu(BatchNorm(x.shape[-1], name="bn1")(x, train=train))
        if x.shape[-1] != self.out:
            x = Conv(self.out, 1, self.stride, name="convShortcut")(y)
        conv = Conv(self.out, 3, self.stride, name="conv1")
        y = nn.relu(conv_norm(conv, BatchNorm(self.out, name="bn2"), y, train=train))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + Conv(self.out, name="conv2")(y)


class WideResNet(nn.Module):
    """Three stages of wide pre-activation blocks.

    Attributes:
      classes: number of logits.
      blocks: per stage.
      outs: channels per stage.
      stem: channels of the first convolution.
      dropout: rate inside the blocks.
    """

    classes: int
    blocks: int = 4
    outs: tuple[int, ...] = (160, 320, 640)
    stem: int = 16
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Answer:
        """Returns logits and the means that the linear layer reads."""
        x = Conv(self.stem, name="conv1")(images)
        for stage, out in enumerate(self.outs):
            for block in range(self.blocks):
                stride = 2 if stage and not block else 1
                name = f"block{stage + 1}.layer.{block}"
                x = WideBlock(out, stride, self.dropout, name=name)(x, train=train)
        x = nn.relu(BatchNorm(self.outs[-1], name="bn1")(x, train=train))
        features = global_avg_pool(x)
        return nn.Dense(self.classes, name="fc")(features), features


def resnet(module: ResNet, image_shape: ImageShape) -> ModelSpec:
    """The spec of a ResNet."""
    for_imagenet = module.stem_window == 7
    return ModelSpec(
        f"resnet{_depth(module)}" + ("" if for_imagenet else "_cifar"),
        "resnet",
        module,
        image_shape,
        module.classes,
        module.head,
        any_size=True,
        assumed=(
            "stride 2 and max-pooling around the 7x7 convolution"
            if for_imagenet
            else "stride 1 and no max-pooling around the first convolution",
            "batch-norm eps 1e-5",
        ),
    )


def preact_resnet(module: PreActResNet, image_shape: ImageShape) -> ModelSpec:
    """The spec of a pre-activation ResNet."""
    return ModelSpec(
        f"preact_resnet{_depth(module)}",
        "preact_resnet",
        module,
        image_shape,
        module.classes,
        head="linear",
        any_size=True,
        assumed=("batch-norm eps 1e-5",),
    )


def wide_resnet(module: WideResNet, image_shape: ImageShape) -> ModelSpec:
    """The spec of a wide ResNet."""
    depth = 2 * module.blocks * len(module.outs) + 4
    return ModelSpec(
        f"wide_resnet{depth}_{module.outs[0] // max(1, module.stem)}",
        "wide_resnet",
        module,
        image_shape,
        module.classes,
        head="fc",
        any_size=True,
        assumed=("batch-norm eps 1e-5", "no dropout"),
    )


def _depth(module: ResNet | PreActResNet) -> int:
    """The number in the usual name: layers with weights, shortcuts apart."""
    return (3 if module.bottleneck else 2) * sum(module.blocks) + 2
