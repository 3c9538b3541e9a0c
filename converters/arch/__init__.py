"""The architectures that the converters recognise: how each is read off the shapes in a state dict."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from converters.arch import convnext, densenet, mobile, resnet, small_vgg, vgg, vit
from converters.arch.shapes import Shapes
from converters.rules import Rule, named_alike
from jaxunlearn.models import ModelSpec

__all__ = ["Architecture", "Shapes", "architectures", "by_family", "register"]


class Architecture(NamedTuple):
    """How to recognise a family of networks and convert it.

    Attributes:
      family: as in ``ModelSpec.family``.
      read: gives the spec of a state dict with these shapes, None if the keys are those of another family, or
        a sentence if they are this family's and a shape does not fit.
      canonical: gives the name that the twin has for a key, for files that name the same tensors otherwise.
      rules: makes the table from the network's leaves by path.
      example: name of a typical member, for telling what an unknown checkpoint is nearest to.
      spelled: gives the key that a new file has for a name of the twin, for builds that only keys can show.
    """

    family: str
    read: Callable[[Shapes], ModelSpec | str | None]
    canonical: Callable[[str], str] = str
    rules: Callable[[Mapping[str, Any]], tuple[Rule, ...]] = named_alike
    example: str | None = None
    spelled: Callable[[ModelSpec, str], str] = lambda _, name: name


_ARCHITECTURES = {
    architecture.family: architecture
    for architecture in (
        Architecture("small_vgg", small_vgg.read, example="small_vgg"),
        Architecture("preact_resnet", resnet.read_preact, example="preact_resnet18"),
        Architecture("resnet", resnet.read, example="resnet18"),
        Architecture("wide_resnet", resnet.read_wide, example="wide_resnet28_10"),
        Architecture("vgg", vgg.read, example="vgg16_bn"),
        Architecture("densenet", densenet.read, densenet.canonical, example="densenet121"),
        Architecture("mobilenet_v3", mobile.read_mobilenet_v3, example="mobilenet_v3_large"),
        Architecture("efficientnet", mobile.read_efficientnet, example="efficientnet_b0"),
        Architecture("convnext", convnext.read, example="convnext_tiny"),
        Architecture("vit", vit.read, vit.canonical, example="vit_b_16", spelled=vit.spelled),
    )
}


def architectures() -> tuple[Architecture, ...]:
    """All architectures, those registered last first."""
    return tuple(reversed(_ARCHITECTURES.values()))


def register(architecture: Architecture) -> None:
    """Makes an architecture known to the converters and to every command of this process.

    Raises:
      ValueError: if there is one for that family.
    """
    if architecture.family in _ARCHITECTURES:
        raise ValueError(f"family={architecture.family!r} is registered already; choose another name.")
    _ARCHITECTURES[architecture.family] = architecture


def by_family(family: str) -> Architecture:
    """The architecture of that family.

    Raises:
      KeyError: if there is none.
    """
    return _ARCHITECTURES[family]
