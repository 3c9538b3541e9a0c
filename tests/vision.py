"""torchvision's model definitions beside a torch that lacks its compiled operators."""

import warnings

import torch

# Without its compiled library, torchvision only imports once the schemas of two operators exist.
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
for _schema in ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor", "qnms() -> Tensor"):
    try:
        _LIBRARY.define(_schema)
    except RuntimeError:  # a torchvision with its operators brings the schemas itself
        break
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchvision import models

__all__ = ["models"]
