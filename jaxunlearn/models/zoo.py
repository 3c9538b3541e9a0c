"""Networks by their usual names, to be trained from scratch."""

import functools
from collections.abc import Callable
from math import ceil

from jaxunlearn._check import check_in
from jaxunlearn.models.convnext import ConvNeXt, convnext
from jaxunlearn.models.densenet import DenseNet, densenet
from jaxunlearn.models.mobile import EfficientNet, MobileNetV3, Shape, efficientnet, mobilenet_v3
from jaxunlearn.models.resnet import PreActResNet, ResNet, WideResNet, preact_resnet, resnet, wide_resnet
from jaxunlearn.models.small_vgg import HALF, small_vgg
from jaxunlearn.models.spec import ModelSpec
from jaxunlearn.models.vgg import VGG, vgg
from jaxunlearn.models.vit import SMALL, VisionTransformer, vit

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
_WIDTHS = (64, 128, 256, 512)
_VGG_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}

# MobileNetV3-Large, table 1 of the paper: window, stride, expanded, squeezed, out.
_MOBILENET_V3_LARGE = (
    (3, 1, 16, 0, 16),
    (3, 2, 64, 0, 24),
    (3, 1, 72, 0, 24),
    (5, 2, 72, 24, 40),
    (5, 1, 120, 32, 40),
    (5, 1, 120, 32, 40),
    (3, 2, 240, 0, 80),
    (3, 1, 200, 0, 80),
    (3, 1, 184, 0, 80),
    (3, 1, 184, 0, 80),
    (3, 1, 480, 120, 112),
    (3, 1, 672, 168, 112),
    (5, 2, 672, 168, 160),
    (5, 1, 960, 240, 160),
    (5, 1, 960, 240, 160),
)

# EfficientNet-B0, table 1 of the paper: expansion, window, stride, channels, layers.
_EFFICIENTNET_B0 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def named(name: str, classes: int, image_shape: tuple[int, int, int] = (32, 32, 3)) -> ModelSpec:
    """The spec of a network by its usual name.

    Args:
      name: one of ``NAMES``.
      classes: number of logits.
      image_shape: (height, width, channels) of the images.

    Raises:
      ValueError: if there is no such network.

    Example:
      >>> named("preact_resnet18", 10).head
      'linear'
    """
    check_in(NAMES, name=name)
    return _MAKERS[name](classes, image_shape)


def _resnet(depth: int, *, cifar: bool, preact: bool = False) -> Callable[..., ModelSpec]:
    blocks, bottleneck = _BLOCKS[depth], depth >= 50
    outs = tuple(4 * width for width in _WIDTHS) if bottleneck else _WIDTHS

    def make(classes: int, image_shape: tuple[int, int, int]) -> ModelSpec:
        build = (classes, blocks, _WIDTHS, outs, bottleneck)
        if preact:
            spec = preact_resnet(PreActResNet(*build), image_shape)
        elif cifar:
            spec = resnet(ResNet(*build, stem_window=3, shortcut="shortcut", head="linear"), image_shape)
        else:
            spec = resnet(ResNet(*build), image_shape)
        return spec

    return make


def _wide_resnet(depth: int, width: int) -> Callable[..., ModelSpec]:
    """Three stages of (depth - 4) / 6 blocks, so many times as wide as the narrowest one."""
    blocks, outs = (depth - 4) // 6, tuple(width * channels for channels in (16, 32, 64))
    return lambda classes, image_shape: wide_resnet(WideResNet(classes, blocks, outs), image_shape)


def _vgg(depth: int, *, batch_norm: bool) -> Callable[..., ModelSpec]:
    widths = (64, 128, 256, 512, 512)
    stages = tuple((width,) * count for width, count in zip(widths, _VGG_STAGES[depth], strict=True))
    return lambda classes, image_shape: vgg(VGG(classes, stages, batch_norm), image_shape)


def _densenet(layers: tuple[int, ...], growth: int, stem: int) -> Callable[..., ModelSpec]:
    transitions, channels = [], stem
    for count in layers[:-1]:
        channels = (channels + count * growth) // 2
        transitions.append(channels)
    build = (layers, stem, growth, 4 * growth, tuple(transitions))
    return lambda classes, image_shape: densenet(DenseNet(classes, *build), image_shape)


def _mobilenet_v3(classes: int, image_shape: tuple[int, int, int]) -> ModelSpec:
    shapes = tuple(Shape(f"features.{i}", *row) for i, row in enumerate(_MOBILENET_V3_LARGE, 1))
    return mobilenet_v3(MobileNetV3(classes, shapes, hard_from=6), image_shape)


def _efficientnet(width: float, depth: float, dropout: float) -> Callable[..., ModelSpec]:
    def scaled(channels: int) -> int:
        rounded = max(8, int(channels * width + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * channels * width else rounded + 8

    shapes, channels = [], scaled(32)
    for stage, (expansion, window, stride, out, layers) in enumerate(_EFFICIENTNET_B0, 1):
        for layer in range(ceil(layers * depth)):
            name, squeezed = f"features.{stage}.{layer}", max(1, channels // 4)
            step = 1 if layer else stride
            shapes.append(Shape(name, window, step, expansion * channels, squeezed, scaled(out)))
            channels = scaled(out)
    build = (tuple(shapes), scaled(32), 4 * channels, len(_EFFICIENTNET_B0), dropout)
    return lambda classes, image_shape: efficientnet(EfficientNet(classes, *build), image_shape)


_MAKERS: dict[str, Callable[..., ModelSpec]] = {
    "small_vgg": small_vgg,
    "small_vgg_half": functools.partial(small_vgg, widths=HALF),
    **{f"preact_resnet{depth}": _resnet(depth, cifar=True, preact=True) for depth in _BLOCKS},
    **{f"resnet{depth}_cifar": _resnet(depth, cifar=True) for depth in _BLOCKS},
    **{f"resnet{depth}": _resnet(depth, cifar=False) for depth in _BLOCKS},
    "wide_resnet16_1": _wide_resnet(16, 1),
    "wide_resnet28_10": _wide_resnet(28, 10),
    **{f"vgg{depth}": _vgg(depth, batch_norm=False) for depth in _VGG_STAGES},
    **{f"vgg{depth}_bn": _vgg(depth, batch_norm=True) for depth in _VGG_STAGES},
    "densenet121": _densenet((6, 12, 24, 16), 32, 64),
    "densenet161": _densenet((6, 12, 36, 24), 48, 96),
    "mobilenet_v3_large": _mobilenet_v3,
    "efficientnet_b0": _efficientnet(1.0, 1.0, 0.2),
    "efficientnet_b3": _efficientnet(1.2, 1.4, 0.3),
    "convnext_tiny": lambda classes, image_shape: convnext(ConvNeXt(classes), image_shape),
    "small_vit": lambda classes, image_shape: vit(
        VisionTransformer(classes, **SMALL, resizes=image_shape[:2] != (32, 32)), image_shape
    ),
    "vit_b_16": lambda classes, image_shape: vit(
        VisionTransformer(classes, resizes=image_shape[:2] != (224, 224)), image_shape
    ),
}
NAMES = tuple(_MAKERS)
