"""VGG under torchvision's names, and with other stacks of linear layers behind ``features``."""

from itertools import pairwise
from math import isqrt

from converters.arch.shapes import Shapes, numbers
from jaxunlearn.models import ModelSpec
from jaxunlearn.models.vgg import VGG, vgg


def read(shapes: Shapes) -> ModelSpec | str | None:
    """Reads poolings off the gaps in the numbering, the pooled size off the first linear layer."""
    positions = [
        number
        for number in numbers(shapes, r"features\.(\d+)\.weight")
        if len(shapes[f"features.{number}.weight"]) == 4
    ]
    linears = [f"classifier.{number}" for number in numbers(shapes, r"classifier\.(\d+)\.weight")]
    linears = linears or [name for name in ("classifier",) if f"{name}.weight" in shapes]
    if not linears or positions[:1] != [0]:
        return None
    batch_norm = "features.1.running_mean" in shapes
    step = 3 if batch_norm else 2
    gaps = [after - before - step for before, after in pairwise(positions)]
    if not set(gaps) <= {0, 1}:
        return None
    stages: list[list[int]] = [[]]
    for position, pooled in zip(positions, [*gaps, 0], strict=True):
        stages[-1].append(shapes[f"features.{position}.weight"][0])
        stages += [[]] if pooled else []
    matrices = [shapes[f"{name}.weight"] for name in linears]
    if any(len(matrix) != 2 for matrix in matrices):
        return "its classifier holds something else than linear layers"
    pixels, rest = divmod(matrices[0][1], max(1, stages[-1][-1]))
    side = isqrt(pixels)
    if rest or side * side != pixels or side == 0:
        return (
            f"its classifier reads {matrices[0][1]} features, which is no square of {stages[-1][-1]} channels"
        )
    module = VGG(
        matrices[-1][0],
        tuple(map(tuple, stages)),
        batch_norm,
        side,
        tuple(matrix[0] for matrix in matrices[:-1]),
        tuple(linears),
    )
    usual = 32 if side == 1 else 224
    return vgg(module, (usual, usual, shapes["features.0.weight"][1]))
