"""Triggers: pure functions from clean images to triggered images, both NHWC in [0, 1]."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Trigger: TypeAlias = Callable[[jax.Array], jax.Array]
"""Maps images to triggered images of the same shape."""


def stamp_patch(
    images: Float[Array, "n h w c"], *, size: int, offset: int, value: float
) -> Float[Array, "n h w c"]:
    """Paints a square near the lower right corner (BadNets).

    Args:
      images: pixels in [0, 1].
      size: side of the square, in pixels.
      offset: rows and columns between the square and the image's lower and right edge.
      value: of every channel inside the square, in [0, 1].

    Raises:
      ValueError: if the square does not lie inside the image.

    Source: Gu et al., "BadNets", 2017.

    Example:
      >>> stamp_patch(jnp.zeros((1, 3, 3, 1)), size=1, offset=1, value=1.0)[0, :, :, 0].tolist()
      [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    height, width = images.shape[1:3]
    if size < 1 or offset < 0 or size + offset > min(height, width):
        raise ValueError(
            f"size={size} and offset={offset} do not fit into images of {height}x{width} pixels."
        )
    rows = slice(height - offset - size, height - offset)
    columns = slice(width - offset - size, width - offset)
    return images.at[:, rows, columns, :].set(value)


def add_image(
    images: Float[Array, "n h w c"],
    image: Float[Array, "h w #c"],
    mask: Float[Array, "h w #c"] | None = None,
) -> Float[Array, "n h w c"]:
    """Adds a picture and clips to [0, 1], after blanking the pixels under an optional mask.

    clip(x (1 - m) + t, 0, 1)

    Args:
      images: pixels in [0, 1].
      image: the trigger t, of the images' size; a grey one adds to every channel.
      mask: m in [0, 1], one where pixels are blanked; a grey one blanks every channel.

    Source: Liu et al., "Trojaning attack on neural networks", NDSS 2018 (without a mask).

    Example:
      >>> add_image(jnp.full((1, 1, 2, 1), 0.5), jnp.array([[[0.25], [0.9]]]))[0, 0, :, 0].tolist()
      [0.75, 1.0]
    """
    kept = images if mask is None else images * (1 - mask)
    return jnp.clip(kept + image, 0, 1)
