"""Residual networks under the names of torchvision, of the CIFAR variants, of BackdoorBench and of WideResNet."""

from typing import NamedTuple

from converters.arch.shapes import Shapes, counts_from, numbers
from jaxunlearn.models import ModelSpec
from jaxunlearn.models.resnet import (
    PreActResNet,
    ResNet,
    WideResNet,
    preact_resnet,
    resnet,
    wide_resnet,
)


class _Build(NamedTuple):
    """What the stages of a network are made of."""

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    outs: tuple[int, ...]
    bottleneck: bool
    groups: int


def read(shapes: Shapes) -> ModelSpec | str | None:
    """torchvision's (``downsample``, ``fc``) and the CIFAR style (``shortcut``, ``linear``)."""
    head = next((name for name in ("fc", "linear") if f"{name}.weight" in shapes), None)
    if head is None or not {"bn1.running_mean", "layer1.0.bn1.weight"} <= set(shapes):
        return None
    build = _stages(shapes)
    if isinstance(build, str):
        return build
    stem, last = shapes.get("conv1.weight", ()), shapes[f"{head}.weight"]
    if len(stem) != 4 or stem[2] not in (3, 7) or len(last) != 2:
        return "its first convolution is neither 3x3 nor 7x7, or its last layer is not a matrix"
    shortcut = "shortcut" if any(".shortcut." in key for key in shapes) else "downsample"
    side = 224 if stem[2] == 7 else 32
    return resnet(ResNet(last[0], *build, stem[0], stem[2], shortcut, head), (side, side, stem[1]))


def read_preact(shapes: Shapes) -> ModelSpec | str | None:
    """BackdoorBench's: no normalisation after the first convolution nor after the last block."""
    if "bn1.weight" in shapes or not {"linear.weight", "layer1.0.bn1.weight"} <= set(shapes):
        return None
    build = _stages(shapes)
    if isinstance(build, str):
        return build
    stem, head = shapes.get("conv1.weight", ()), shapes["linear.weight"]
    if len(stem) != 4 or stem[2] != 3 or len(head) != 2:
        return "its first convolution is not 3x3, or its last layer is not a matrix"
    module = PreActResNet(head[0], build.blocks, build.widths, build.outs, build.bottleneck, stem[0])
    return preact_resnet(module, (32, 32, stem[1]))


def read_wide(shapes: Shapes) -> ModelSpec | str | None:
    """Wide residual networks: ``block#.layer.#`` and ``convShortcut``."""
    if not {"fc.weight", "bn1.weight", "block1.layer.0.conv1.weight"} <= set(shapes):
        return None
    stages = numbers(shapes, r"block(\d+)\.layer\.0\.conv1\.weight")
    depths = {len(numbers(shapes, rf"block{stage}\.layer\.(\d+)\.conv1\.weight")) for stage in stages}
    stem, head = shapes.get("conv1.weight", ()), shapes["fc.weight"]
    kernels = [shapes[f"block{stage}.layer.0.conv1.weight"] for stage in stages]
    if not counts_from(1, stages) or len(depths) != 1:
        return "its stages differ in depth"
    if len(head) != 2 or any(len(kernel) != 4 for kernel in (stem, *kernels)):
        return "its kernels are not four-dimensional or its last layer is not a matrix"
    module = WideResNet(head[0], depths.pop(), tuple(kernel[0] for kernel in kernels), stem[0])
    return wide_resnet(module, (32, 32, stem[1]))


def _stages(shapes: Shapes) -> _Build | str:
    stages = numbers(shapes, r"layer(\d+)\.0\.conv1\.weight")
    blocks = [numbers(shapes, rf"layer{stage}\.(\d+)\.conv1\.weight") for stage in stages]
    if not counts_from(1, stages) or not all(counts_from(0, found) for found in blocks):
        return "its blocks are not numbered without gaps"
    bottleneck = "layer1.0.conv3.weight" in shapes
    inner = [shapes.get(f"layer{stage}.0.conv2.weight", ()) for stage in stages]
    outer = [shapes.get(f"layer{stage}.0.conv3.weight", ()) for stage in stages] if bottleneck else inner
    first = [shapes[f"layer{stage}.0.conv1.weight"] for stage in stages]
    if any(len(kernel) != 4 or 0 in kernel for kernel in (*first, *inner, *outer)):
        return "its kernels are not four-dimensional"
    widths = [kernel[0] for kernel in first]
    return _Build(
        tuple(len(found) for found in blocks),
        tuple(widths),
        tuple(kernel[0] for kernel in outer),
        bottleneck,
        groups=max(1, widths[0] // inner[0][1]),
    )
