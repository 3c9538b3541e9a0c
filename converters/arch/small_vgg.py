"""The small VGG published with I-BAU: ``features.#`` and ``classifier``."""

from collections.abc import Mapping
from math import isqrt

from converters.rules import Rule, batch_norm, conv, linear
from jaxunlearn.models import ModelSpec, small_vgg

# Each stage is conv, norm, ELU, conv, norm, ELU, pool, dropout; a convolution's norm follows it directly.
_CONVOLUTIONS = (0, 3, 8, 11, 16, 19)


def rules() -> list[Rule]:
    """The complete table."""
    table = []
    for index, position in enumerate(_CONVOLUTIONS):
        table += conv(f"features.{position}", f"conv{index}")
        table += batch_norm(f"features.{position + 1}", f"bn{index}")
    return table + linear("classifier", "classifier")


def spec(shapes: Mapping[str, tuple[int, ...]]) -> ModelSpec | str:
    """Reads channels, widths, classes and the (square) image size off the shapes."""
    kernels = [shapes[f"features.{position}.weight"] for position in _CONVOLUTIONS]
    head = shapes["classifier.weight"]
    if any(len(kernel) != 4 or kernel[2:] != (3, 3) for kernel in kernels) or len(head) != 2:
        return "its convolutions are not 3x3 or its classifier is not a matrix"
    widths = tuple(kernel[0] for kernel in kernels[1::2])
    pixels, rest = divmod(head[1], widths[-1])
    side = isqrt(pixels)
    if rest or side * side != pixels or side == 0:
        return f"its classifier reads {head[1]} features, which is no square image of {widths[-1]} channels"
    # Three poolings; the smallest image that gives this many features.
    return small_vgg(head[0], (8 * side, 8 * side, kernels[0][1]), widths)
