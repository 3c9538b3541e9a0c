"""What happens to pixels before a network sees them."""

import jax
import jax.numpy as jnp

from jaxunlearn._typing import Images, PRNGKey


def augment(images: Images, key: PRNGKey, *, crop_padding: int, flip: bool) -> Images:
    """Random crops of the zero-padded images, and random mirroring, as usual for small photographs.

    Args:
      images: pixels.
      key: of the random choices, one of each per image.
      crop_padding: pixels of black border on every side, out of which the crop is cut; 0 for no crop.
      flip: whether to mirror left and right with probability one half.
    """
    count, height, width, channels = images.shape
    crop_key, flip_key = jax.random.split(key)
    if crop_padding:
        border = (crop_padding, crop_padding)
        padded = jnp.pad(images, ((0, 0), border, border, (0, 0)))
        corners = jax.random.randint(crop_key, (count, 2), 0, 2 * crop_padding + 1)
        images = jax.vmap(
            lambda image, corner: jax.lax.dynamic_slice(
                image, (corner[0], corner[1], 0), (height, width, channels)
            )
        )(padded, corners)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(count, 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    return images
