"""DenseNet under torchvision's names, old and new."""

import re

from converters.arch.shapes import Shapes, counts_from, numbers
from jaxunlearn.models import ModelSpec
from jaxunlearn.models.densenet import DenseNet, densenet


def canonical(key: str) -> str:
    """Old files number the layers behind a dot: ``denselayer1.norm.1`` is ``denselayer1.norm1``."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", key)


def read(shapes: Shapes) -> ModelSpec | str | None:
    """Reads blocks and widths off the shapes."""
    shapes = {canonical(key): shape for key, shape in shapes.items()}
    if not {"features.conv0.weight", "features.norm5.weight", "classifier.weight"} <= set(shapes):
        return None
    blocks = numbers(shapes, r"features\.denseblock(\d+)\.denselayer1\.conv1\.weight")
    layers = [
        numbers(shapes, rf"features\.denseblock{block}\.denselayer(\d+)\.conv1\.weight") for block in blocks
    ]
    if not counts_from(1, blocks) or not all(counts_from(1, found) for found in layers):
        return "its blocks are not numbered without gaps"
    first = "features.denseblock1.denselayer1"
    stem, head = shapes["features.conv0.weight"], shapes["classifier.weight"]
    transitions = [shapes.get(f"features.transition{block}.conv.weight", ()) for block in blocks[:-1]]
    growing = shapes.get(f"{first}.conv2.weight", ())
    if len(head) != 2 or any(len(kernel) != 4 for kernel in (stem, growing, *transitions)):
        return "its kernels are not four-dimensional or its last layer is not a matrix"
    depths = tuple(len(found) for found in layers)
    widths = tuple(kernel[0] for kernel in transitions)
    return densenet(DenseNet(head[0], depths, stem[0], growing[0], growing[1], widths), (224, 224, stem[1]))
