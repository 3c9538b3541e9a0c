"""MobileNetV3 and EfficientNet under torchvision's names.

Kernels and channels show in the shapes; strides, activations and the constants of the normalisations do not, and
come from the papers' tables.
"""

from converters.arch.shapes import Shapes, counts_from, numbers
from jaxunlearn.models import ModelSpec
from jaxunlearn.models.mobile import EfficientNet, MobileNetV3, Shape, efficientnet, mobilenet_v3

# By the number of inverted residuals: which of them have stride 2, and the first with hard-swish, from 0.
_MOBILENET_V3 = {15: ({1, 3, 6, 12}, 6), 11: ({0, 1, 3, 8}, 3)}

_EFFICIENTNET_STRIDES = {1: 1, 2: 2, 3: 2, 4: 2, 5: 1, 6: 2, 7: 1}
# By the channels of the last convolution, which name the member of the family.
_SIDES = {1280: 224, 1408: 260, 1536: 300, 1792: 380, 2048: 456, 2304: 528, 2560: 600}
_DROPOUTS = {1280: 0.2, 1408: 0.3, 1536: 0.3, 1792: 0.4, 2048: 0.4, 2304: 0.5, 2560: 0.5}
_TENSORFLOW_CONSTANTS_FROM = 2048


def read_mobilenet_v3(shapes: Shapes) -> ModelSpec | str | None:
    """``features.#.block.#``, two linear layers."""
    indices = numbers(shapes, r"features\.(\d+)\.block\.0\.0\.weight")
    if not counts_from(1, indices) or not {"classifier.0.weight", "classifier.3.weight"} <= set(shapes):
        return None
    if len(indices) not in _MOBILENET_V3:
        return f"it has {len(indices)} inverted residuals, where MobileNetV3 has 15 (large) or 11 (small)"
    halving, hard_from = _MOBILENET_V3[len(indices)]
    blocks = [_inverted_residual(shapes, f"features.{i}", 2 if i - 1 in halving else 1) for i in indices]
    stem = shapes.get("features.0.0.weight", ())
    last = shapes.get(f"features.{len(indices) + 1}.0.weight", ())
    hidden, head = shapes["classifier.0.weight"], shapes["classifier.3.weight"]
    if None in blocks or (len(stem), len(last), len(hidden), len(head)) != (4, 4, 2, 2):
        return "its layers have not the dimensions of convolutions and linear layers"
    module = MobileNetV3(head[0], tuple(filter(None, blocks)), hard_from, stem[0], last[0], hidden[0])
    return mobilenet_v3(module, (224, 224, stem[1]))


def read_efficientnet(shapes: Shapes) -> ModelSpec | str | None:
    """``features.#.#.block.#``, one linear layer."""
    stages = numbers(shapes, r"features\.(\d+)\.0\.block\.0\.0\.weight")
    if not counts_from(1, stages) or "classifier.1.weight" not in shapes:
        return None
    if len(stages) != len(_EFFICIENTNET_STRIDES):
        return f"it has {len(stages)} stages, where EfficientNet has {len(_EFFICIENTNET_STRIDES)}"
    blocks = [
        _inverted_residual(shapes, f"features.{stage}.{index}", 1 if index else _EFFICIENTNET_STRIDES[stage])
        for stage in stages
        for index in numbers(shapes, rf"features\.{stage}\.(\d+)\.block\.0\.0\.weight")
    ]
    stem, last = shapes.get("features.0.0.weight", ()), shapes.get("features.8.0.weight", ())
    head = shapes["classifier.1.weight"]
    if None in blocks or (len(stem), len(last), len(head)) != (4, 4, 2):
        return "its layers have not the dimensions of convolutions and linear layers"
    # The largest three were trained with TensorFlow's constants.
    constants = (0.01, 1e-3) if last[0] >= _TENSORFLOW_CONSTANTS_FROM else (0.1, 1e-5)
    dropout = _DROPOUTS.get(last[0], 0.2)
    module = EfficientNet(
        head[0], tuple(filter(None, blocks)), stem[0], last[0], len(stages), dropout, 0.2, *constants
    )
    side = _SIDES.get(last[0], 224)
    return efficientnet(module, (side, side, stem[1]))


def _inverted_residual(shapes: Shapes, name: str, stride: int) -> Shape | None:
    kernels = [
        shapes[f"{name}.block.{k}.0.weight"] for k in numbers(shapes, rf"{name}\.block\.(\d+)\.0\.weight")
    ]
    depthwise = [kernel for kernel in kernels if len(kernel) == 4 and kernel[1] == 1]
    if not depthwise or len(kernels[-1]) != 4:
        return None
    squeeze = [
        shape for key, shape in shapes.items() if key.startswith(f"{name}.") and key.endswith(".fc1.weight")
    ]
    squeezed = squeeze[0][0] if squeeze and squeeze[0] else 0
    return Shape(name, depthwise[0][2], stride, depthwise[0][0], squeezed, kernels[-1][0])
