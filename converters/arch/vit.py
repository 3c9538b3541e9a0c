"""Vision transformers under torchvision's names, timm's, and BackdoorBench's (torchvision's behind a resize)."""

import re
from math import isqrt

from converters.arch.shapes import Shapes, counts_from, numbers
from jaxunlearn.models import ModelSpec
from jaxunlearn.models.vit import VisionTransformer, vit

_RESIZING = "1."  # BackdoorBench: torch.nn.Sequential(Resize((224, 224)), vit)
_FROM_TIMM = (
    (r"cls_token", "class_token"),
    (r"pos_embed", "encoder.pos_embedding"),
    (r"patch_embed\.proj\.(.+)", r"conv_proj.\1"),
    (r"norm\.(.+)", r"encoder.ln.\1"),
    (r"head\.(.+)", r"heads.head.\1"),
    (r"blocks\.(\d+)\.norm([12])\.(.+)", r"encoder.layers.encoder_layer_\1.ln_\2.\3"),
    (r"blocks\.(\d+)\.attn\.qkv\.(.+)", r"encoder.layers.encoder_layer_\1.self_attention.in_proj_\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(.+)", r"encoder.layers.encoder_layer_\1.self_attention.out_proj.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(.+)", r"encoder.layers.encoder_layer_\1.mlp.0.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(.+)", r"encoder.layers.encoder_layer_\1.mlp.3.\2"),
)
_FROM_OLD_TORCHVISION = (
    (r"(.+)\.mlp\.linear_1\.(.+)", r"\1.mlp.0.\2"),
    (r"(.+)\.mlp\.linear_2\.(.+)", r"\1.mlp.3.\2"),
)
_HEADS = {1280: 16}  # elsewhere a head is 64 wide


def canonical(key: str) -> str:
    """torchvision's name.

    Example:
      >>> canonical("blocks.3.attn.qkv.bias")
      'encoder.layers.encoder_layer_3.self_attention.in_proj_bias'
    """
    key = key.removeprefix(_RESIZING)
    for pattern, replacement in _FROM_TIMM + _FROM_OLD_TORCHVISION:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, replacement, key)
    return key


def spelled(spec: ModelSpec, name: str) -> str:
    """BackdoorBench's name where images are resized, torchvision's otherwise."""
    return f"{_RESIZING}{name}" if spec.module.resizes else name


def read(shapes: Shapes) -> ModelSpec | str | None:
    """Reads patches, width, depth and image size off the shapes."""
    resizes = all(key.startswith(_RESIZING) for key in shapes)
    shapes = {canonical(key): shape for key, shape in shapes.items()}
    if not {"class_token", "encoder.pos_embedding", "conv_proj.weight", "heads.head.weight"} <= set(shapes):
        return None
    layer = "encoder.layers.encoder_layer_"
    layers = numbers(shapes, rf"{layer}(\d+)\.mlp\.0\.weight")
    positions, head = shapes["encoder.pos_embedding"], shapes["heads.head.weight"]
    stem, mlp = shapes["conv_proj.weight"], shapes.get(f"{layer}0.mlp.0.weight", ())
    if not counts_from(0, layers) or (len(stem), len(positions), len(head), len(mlp)) != (4, 3, 2, 2):
        return "its layers have not the dimensions of a transformer's"
    width, channels, patch = stem[0], stem[1], stem[2]
    grid, heads = isqrt(max(0, positions[1] - 1)), _HEADS.get(width, width // 64)
    if grid == 0 or grid * grid != positions[1] - 1:
        return f"it has {positions[1]} positions, which is no square of patches and a class token"
    if heads == 0 or width % heads:
        return f"its width {width} does not divide into heads of 64"
    module = VisionTransformer(head[0], grid * patch, patch, width, len(layers), heads, mlp[0], resizes)
    side = 32 if resizes else grid * patch
    return vit(module, (side, side, channels))
