"""Flax twins of the PyTorch networks that the converters know."""

from jaxunlearn.models.convnext import ConvNeXt
from jaxunlearn.models.convolution import convolve
from jaxunlearn.models.densenet import DenseNet
from jaxunlearn.models.mobile import EfficientNet, MobileNetV3
from jaxunlearn.models.resnet import PreActResNet, ResNet, WideResNet
from jaxunlearn.models.small_vgg import SmallVGG, small_vgg
from jaxunlearn.models.spec import ModelSpec
from jaxunlearn.models.vgg import VGG
from jaxunlearn.models.vit import VisionTransformer
from jaxunlearn.models.zoo import NAMES, named

__all__ = [
    "NAMES",
    "VGG",
    "ConvNeXt",
    "DenseNet",
    "EfficientNet",
    "MobileNetV3",
    "ModelSpec",
    "PreActResNet",
    "ResNet",
    "SmallVGG",
    "VisionTransformer",
    "WideResNet",
    "convolve",
    "named",
    "small_vgg",
]
