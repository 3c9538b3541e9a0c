"""The small VGG published with I-BAU: ``features.#`` and ``classifier``."""

from math import isqrt

from converters.arch.shapes import Shapes, numbers
from jaxunlearn.models import ModelSpec, small_vgg
from jaxunlearn.models.small_vgg import CONVOLUTIONS


def read(shapes: Shapes) -> ModelSpec | str | None:
    """Reads channels, widths, classes and the (square) image size off the shapes."""
    norms = numbers(shapes, r"features\.(\d+)\.running_mean")
    if norms != [position + 1 for position in CONVOLUTIONS] or "classifier.weight" not in shapes:
        return None
    kernels = [shapes.get(f"features.{position}.weight", ()) for position in CONVOLUTIONS]
    head = shapes["classifier.weight"]
    if any(len(kernel) != 4 or kernel[2:] != (3, 3) for kernel in kernels) or len(head) != 2:
        return "its convolutions are not 3x3 or its classifier is not a matrix"
    widths = tuple(kernel[0] for kernel in kernels[1::2])
    pixels, rest = divmod(head[1], max(1, widths[-1]))
    side = isqrt(pixels)
    if rest or side * side != pixels or side == 0:
        return f"its classifier reads {head[1]} features, which is no square image of {widths[-1]} channels"
    # Three poolings; the smallest image that gives this many features.
    return small_vgg(head[0], (8 * side, 8 * side, kernels[0][1]), widths)
