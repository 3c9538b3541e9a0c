"""Augmentation."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxunlearn.pixels import augment

IMAGES = jnp.arange(64 * 5 * 4, dtype=jnp.float32).reshape(64, 5, 4, 1) + 1


def test_nothing_asked_nothing_done() -> None:
    np.testing.assert_array_equal(augment(IMAGES, jax.random.key(0), crop_padding=0, flip=False), IMAGES)


def test_flips_about_half_of_the_images_and_only_left_to_right() -> None:
    flipped = augment(IMAGES, jax.random.key(0), crop_padding=0, flip=True)
    same = np.all(np.asarray(flipped == IMAGES), axis=(1, 2, 3))
    mirrored = np.all(np.asarray(flipped == IMAGES[:, :, ::-1]), axis=(1, 2, 3))
    assert np.all(same ^ mirrored)
    assert 16 < same.sum() < 48


def test_crops_are_shifted_images_with_black_borders() -> None:
    cropped = np.asarray(augment(IMAGES, jax.random.key(0), crop_padding=2, flip=False))
    padded = np.pad(np.asarray(IMAGES), ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = set()
    for before, after in zip(padded, cropped, strict=True):
        corners = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if np.array_equal(before[row : row + 5, column : column + 4], after)
        ]
        assert len(corners) == 1
        found.add(corners[0])
    assert len(found) > 12  # of 25
