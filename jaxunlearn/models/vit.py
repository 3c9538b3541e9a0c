"""The vision transformer.

Source: Dosovitskiy et al., An Image is Worth 16x16 Words (2021), with torchvision's names.
"""

from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxunlearn._typing import Images
from jaxunlearn.models.layers import Answer, Conv, gelu, layer_norm
from jaxunlearn.models.spec import ImageShape, ModelSpec

Tokens: TypeAlias = Float[Array, "n t e"]


class SelfAttention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values.

    Attributes:
      heads: number of heads.
    """

    heads: int

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """softmax(Q K^T / sqrt(d)) V, head by head, projected."""
        count, tokens, width = x.shape
        weight = self.param("in_proj_weight", nn.initializers.xavier_uniform(), (3 * width, width))
        bias = self.param("in_proj_bias", nn.initializers.zeros, (3 * width,))
        parts = (x @ weight.T + bias).reshape(count, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
        scores = jnp.einsum("nqhd,nkhd->nhqk", q * (width // self.heads) ** -0.5, k)
        mixed = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores), v)
        return nn.Dense(width, name="out_proj")(mixed.reshape(count, tokens, width))


class EncoderLayer(nn.Module):
    """Attention and two linear layers with GELU between them, each after a layer norm and around a shortcut.

    Attributes:
      heads: number of heads.
      hidden: width between the linear layers.
      dropout: rate on both branches.
    """

    heads: int
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, x: Tokens, *, train: bool) -> Tokens:
        """Applies the layer."""
        width = x.shape[-1]
        y = SelfAttention(self.heads, name="self_attention")(layer_norm("ln_1")(x))
        x = x + nn.Dropout(self.dropout, deterministic=not train)(y)
        y = gelu(nn.Dense(self.hidden, name="mlp.0")(layer_norm("ln_2")(x)))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = nn.Dense(width, name="mlp.3")(y)
        return x + nn.Dropout(self.dropout, deterministic=not train)(y)


class VisionTransformer(nn.Module):
    """Patches as tokens, a class token in front, encoder layers, a linear layer on the class token.

    Attributes:
      classes: number of logits.
      side: of the images inside; others are resized to it (bilinear) where ``resizes``.
      patch: side of the patches.
      width: of the tokens.
      layers: number of encoder layers.
      heads: number of heads.
      hidden: width between the linear layers of an encoder layer.
      resizes: whether images of another size are resized.
      dropout: rate in the encoder.
    """

    classes: int
    side: int = 224
    patch: int = 16
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    resizes: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: Images, *, train: bool) -> Answer:
        """Returns logits and the class token that the linear layer reads."""
        x = images
        if self.resizes:
            x = jax.image.resize(x, (x.shape[0], self.side, self.side, x.shape[3]), "bilinear")
        x = Conv(self.width, self.patch, self.patch, padding=0, use_bias=True, name="conv_proj")(x)
        x = x.reshape(x.shape[0], -1, self.width)
        token = self.param("class_token", nn.initializers.zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)), x], axis=1)
        positions = self.param(
            "encoder.pos_embedding", nn.initializers.normal(0.02), (1, x.shape[1], self.width)
        )
        x = nn.Dropout(self.dropout, deterministic=not train)(x + positions)
        for layer in range(self.layers):
            name = f"encoder.layers.encoder_layer_{layer}"
            x = EncoderLayer(self.heads, self.hidden, self.dropout, name=name)(x, train=train)
        features = layer_norm("encoder.ln")(x)[:, 0]
        return nn.Dense(self.classes, name="heads.head")(features), features


SMALL: dict[str, Any] = {"side": 32, "patch": 8, "width": 192, "layers": 4, "heads": 3, "hidden": 384}
"""A transformer for small images."""

_SIZES = {(192, 12): "ti", (384, 12): "s", (768, 12): "b", (1024, 24): "l", (1280, 32): "h"}


def vit(module: VisionTransformer, image_shape: ImageShape) -> ModelSpec:
    """The spec of a vision transformer; ``small_vit`` is its name with ``SMALL``."""
    size = _SIZES.get((module.width, module.layers), "custom")
    small = all(getattr(module, name) == value for name, value in SMALL.items())
    resize = (f"a bilinear resize to {module.side}x{module.side} in front",) if module.resizes else ()
    return ModelSpec(
        "small_vit" if small else f"vit_{size}_{module.patch}",
        "vit",
        module,
        image_shape,
        module.classes,
        head="heads.head",
        any_size=module.resizes,
        assumed=(f"{module.heads} heads", "exact GELU", "layer-norm eps 1e-6", *resize),
    )
