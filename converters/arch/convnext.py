"""ConvNeXt under torchvision's names."""

from converters.arch.shapes import Shapes, counts_from, numbers
from jaxunlearn.models import ModelSpec
from jaxunlearn.models.convnext import ConvNeXt, convnext


def read(shapes: Shapes) -> ModelSpec | str | None:
    """Reads stages and widths off the shapes."""
    stages = numbers(shapes, r"features\.(\d+)\.0\.layer_scale")
    if not stages or not {"features.0.0.weight", "classifier.2.weight"} <= set(shapes):
        return None
    blocks = [numbers(shapes, rf"features\.{stage}\.(\d+)\.layer_scale") for stage in stages]
    if stages != [2 * i + 1 for i in range(len(stages))] or not all(counts_from(0, b) for b in blocks):
        return "its stages are not numbered as torchvision does"
    scales = [shapes[f"features.{stage}.0.layer_scale"] for stage in stages]
    stem, head = shapes["features.0.0.weight"], shapes["classifier.2.weight"]
    if (len(stem), len(head)) != (4, 2) or any(len(scale) != 3 for scale in scales):
        return "its layers have not the dimensions of convolutions and linear layers"
    widths, depths = tuple(scale[0] for scale in scales), tuple(len(found) for found in blocks)
    return convnext(ConvNeXt(head[0], depths, widths), (224, 224, stem[1]))
