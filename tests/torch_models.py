"""PyTorch definitions of networks that torchvision does not have, from the papers and the names in their files."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from converters import convert
from jaxunlearn.models import ModelSpec


def conv(inputs: int, outputs: int, window: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, window, stride, padding=window // 2, bias=False)


class CifarBlock(nn.Module):
    """A residual block of the CIFAR kind: its projection is called ``shortcut``."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = 4 * width if bottleneck else width
        if bottleneck:
            sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        else:
            sizes = [(inputs, width, 3, stride), (width, out, 3, 1)]
        for number, size in enumerate(sizes, 1):
            setattr(self, f"conv{number}", conv(*size))
            setattr(self, f"bn{number}", nn.BatchNorm2d(size[1]))
        self.depth = len(sizes)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != out:
            self.shortcut = nn.Sequential(conv(inputs, out, 1, stride), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in range(1, self.depth + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = functional.relu(y) if number < self.depth else y
        return functional.relu(y + self.shortcut(x))


class PreActBlock(nn.Module):
    """A pre-activation block: its projection has no normalisation and starts after the first ReLU."""

    bn1: nn.Module
    conv1: nn.Module

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = 4 * width if bottleneck else width
        if bottleneck:
            sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        else:
            sizes = [(inputs, width, 3, stride), (width, out, 3, 1)]
        for number, size in enumerate(sizes, 1):
            setattr(self, f"bn{number}", nn.BatchNorm2d(size[0]))
            setattr(self, f"conv{number}", conv(*size))
        self.depth = len(sizes)
        if stride != 1 or inputs != out:
            self.shortcut = nn.Sequential(conv(inputs, out, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(x))
        shortcut = self.shortcut(y) if hasattr(self, "shortcut") else x
        y = self.conv1(y)
        for number in range(2, self.depth + 1):
            y = getattr(self, f"conv{number}")(functional.relu(getattr(self, f"bn{number}")(y)))
        return y + shortcut


class CifarResNet(nn.Module):
    """A 3x3 stem without pooling; ``preact`` leaves out its normalisation."""

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int],
        *,
        bottleneck: bool,
        preact: bool,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.conv1 = conv(3, widths[0], 3)
        if not preact:
            self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages, inputs = len(blocks), widths[0]
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            layers = []
            for index in range(count):
                kind = PreActBlock if preact else CifarBlock
                layers.append(kind(inputs, width, 2 if stage and not index else 1, bottleneck))
                inputs = 4 * width if bottleneck else width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if hasattr(self, "bn1"):
            x = functional.relu(self.bn1(x))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class WideBlock(nn.Module):
    """Where the channels change, the first ReLU precedes both branches."""

    def __init__(self, inputs: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, out, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(out), conv(out, out, 3)
        self.convShortcut = conv(inputs, out, 1, stride) if inputs != out else None

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(x))
        x = x if self.convShortcut is None else self.convShortcut(y)
        return x + self.conv2(functional.relu(self.bn2(self.conv1(y))))


class WideStage(nn.Module):
    """The blocks of a stage under the name ``layer``."""

    def __init__(self, inputs: int, out: int, blocks: int, stride: int) -> None:
        super().__init__()
        first = WideBlock(inputs, out, stride)
        self.layer = nn.Sequential(first, *(WideBlock(out, out, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(nn.Module):
    """Three stages of wide pre-activation blocks."""

    block1: nn.Module
    block2: nn.Module
    block3: nn.Module

    def __init__(self, blocks: int = 4, widen: int = 10, stem: int = 16, classes: int = 10) -> None:
        super().__init__()
        widths = [stem, stem * widen, 2 * stem * widen, 4 * stem * widen]
        self.conv1 = conv(3, stem, 3)
        for stage in (1, 2, 3):
            block = WideStage(widths[stage - 1], widths[stage], blocks, 1 if stage == 1 else 2)
            setattr(self, f"block{stage}", block)
        self.bn1, self.fc = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(functional.adaptive_avg_pool2d(functional.relu(self.bn1(x)), 1).flatten(1))


class PlainVGG(nn.Module):
    """The CIFAR variant: one linear layer behind 1x1 activations."""

    def __init__(self, stages: Sequence[Sequence[int]], classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for widths in stages:
            for width in widths:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class Resizing(nn.Sequential):
    """BackdoorBench's vision transformer: a resize in front, so that every key begins with ``1.``."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__(nn.Upsample((side, side), mode="bilinear", align_corners=False), network)


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """Weights as trained networks have them: no normalisation is the identity, no two tensors are equal."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                bound = (3 / (module.weight[0].numel())) ** 0.5
                uniform(module.weight, -bound, bound)
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                uniform(module.weight, 0.7, 1.3)
            if isinstance(module, nn.BatchNorm2d):
                uniform(module.get_buffer("running_mean"), -0.2, 0.2)
                uniform(module.get_buffer("running_var"), 0.3, 1.2)
            if getattr(module, "bias", None) is not None and isinstance(module.bias, Tensor):
                uniform(module.bias, -0.1, 0.1)
            if isinstance(module, nn.MultiheadAttention):
                uniform(module.in_proj_weight, -0.2, 0.2)
                uniform(module.in_proj_bias, -0.1, 0.1)
        for name, parameter in network.named_parameters():
            if name.endswith(("class_token", "pos_embedding", "layer_scale")):
                uniform(parameter, -0.5, 0.5)
    return network


def calibrate(network: nn.Module, side: int) -> nn.Module:
    """Running statistics that fit the weights; with the initial ones, activations vanish on the way down."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    images = torch.rand((64, 3, side, side), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()


def without_dropout(model: nn.Module) -> tuple[ModelSpec, Any]:
    """The twin of a small VGG and its variables, both without dropout from now on."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    spec, variables = convert.from_torch(
        {key: value.numpy().copy() for key, value in model.state_dict().items()}
    )
    twin: Any = spec.module
    twin = dataclasses.replace(twin, dropout=(0.0,) * len(twin.dropout))
    return dataclasses.replace(spec, module=twin), variables
