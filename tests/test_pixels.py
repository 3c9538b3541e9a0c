"""Normalisation and augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn._check import InputError
from jaxunlearn.fit import training_for
from jaxunlearn.pixels import NORMALIZATIONS, Preprocessing, augment, parse_normalization
from tests import toys

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
    assert len(found) > 20  # of 25


def test_normalises_by_channel_and_swaps_afterwards() -> None:
    images = np.random.default_rng(0).random((2, 3, 3, 3)).astype(np.float32)
    one = Preprocessing("mine", (0.1, 0.2, 0.3), (1.0, 2.0, 4.0), bgr=True)
    expected = np.stack([(images[..., 2] - 0.3) / 4, (images[..., 1] - 0.2) / 2, images[..., 0] - 0.1], -1)
    np.testing.assert_allclose(one(images), expected, atol=1e-6)
    logits, _ = one.before(lambda variables, x, *, train: (x, {}))({}, jnp.asarray(images), train=False)
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_a_network_behind_a_preprocessing_is_equal_where_its_parts_are() -> None:
    half = Preprocessing("half", (0.5,), (0.5,))
    assert half.before(toys.apply_fn) == NORMALIZATIONS["half"].before(toys.apply_fn)
    assert hash(half.before(toys.apply_fn)) == hash(NORMALIZATIONS["half"].before(toys.apply_fn))
    assert half.before(toys.apply_fn) != NORMALIZATIONS["imagenet"].before(toys.apply_fn)
    assert NORMALIZATIONS["none"].before(toys.apply_fn) is toys.apply_fn


def test_gradients_are_those_of_pixels() -> None:
    network = Preprocessing("mine", (0.5,), (0.25,)).before(lambda variables, x, *, train: (x, {}))
    slope = jax.grad(lambda x: network({}, x, train=False)[0].sum())(jnp.ones((1, 2, 2, 3)))
    np.testing.assert_allclose(slope, 4.0)


def test_texts_name_normalizations() -> None:
    assert parse_normalization("gtsrb") is NORMALIZATIONS["gtsrb"]
    given = parse_normalization("0.1,0.2,0.3/1,2,4")
    assert (given.mean, given.std, given.bgr) == ((0.1, 0.2, 0.3), (1.0, 2.0, 4.0), False)


@pytest.mark.parametrize(
    "text", ["mnist", "", "0.5", "0.5/0", "0.5/-1", "a/b", "0,0/1,1", "0,0,0/1", "nan/1", "0.5/inf", "0/1/2"]
)
def test_texts_that_name_none(text: str) -> None:
    with pytest.raises(InputError, match="is no normalisation; expected none, cifar10"):
        parse_normalization(text)


def test_a_training_crops_by_the_shorter_side() -> None:
    """Else narrow images would be moved out of the picture."""
    shapes = [(32, 32, 3), (64, 16, 3), (16, 64, 3), (64, 8, 3)]
    assert [training_for(shape, 1000).crop_padding for shape in shapes] == [4, 2, 2, 0]


def test_usual_normalisations_are_those_that_people_use() -> None:
    """Means and standard deviations of the training sets, as they stand in published code."""
    mean, std = zip(
        *((one.mean, one.std) for one in map(NORMALIZATIONS.__getitem__, ("cifar10", "imagenet"))),
        strict=True,
    )
    assert mean == ((0.4914, 0.4822, 0.4465), (0.485, 0.456, 0.406))
    assert std == ((0.247, 0.243, 0.261), (0.229, 0.224, 0.225))
    assert NORMALIZATIONS["gtsrb"].mean == (0.3337, 0.3064, 0.3171)
