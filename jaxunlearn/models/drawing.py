"""A network that draws a picture for every image, as the input-aware attack needs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxunlearn._typing import Images


class Drawing(nn.Module):
    """Draws a picture for every image: down to a quarter of the side and up again.

    Attributes:
      channels: of the picture.
      width: channels inside.
    """

    channels: int
    width: int = 32

    @nn.compact
    def __call__(self, images: Images) -> Float[Array, "n h w channels"]:
        """Any real numbers."""
        x = jnp.asarray(images)
        sides = [(x.shape[1], x.shape[2])]
        for _ in range(2):
            sides.append((max(1, sides[-1][0] // 2), max(1, sides[-1][1] // 2)))
        x = self._layer(x)
        for side in (*sides[1:], *sides[1::-1]):
            x = self._layer(jax.image.resize(x, (len(x), *side, x.shape[-1]), "linear"))
        return nn.Conv(self.channels, (3, 3))(x)

    def _layer(self, x: jax.Array) -> jax.Array:
        return nn.relu(nn.GroupNorm(num_groups=4)(nn.Conv(self.width, (3, 3))(x)))
