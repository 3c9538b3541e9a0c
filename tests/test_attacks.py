"""Triggers and poisoned sets."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxunlearn._check import InputError
from jaxunlearn.attacks import add_image, poison, stamp_patch
from jaxunlearn.inputs import parse_trigger


def test_the_default_patch_is_the_published_one() -> None:
    changed = np.asarray(parse_trigger("patch:")(jnp.zeros((1, 32, 32, 3))))[0].min(axis=-1)
    assert np.argwhere(changed == 1).tolist() == [[r, c] for r in range(27, 31) for c in range(27, 31)]
    assert changed.sum() == 16


def test_patch_options() -> None:
    image = np.asarray(parse_trigger("patch:size=1,offset=0,value=0.5")(jnp.zeros((1, 3, 3, 1))))[0, ..., 0]
    assert image.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0.5]]


def test_a_patch_outside_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="size=3 and offset=1 do not fit into images of 3x3"):
        stamp_patch(jnp.zeros((1, 3, 3, 1)), size=3, offset=1, value=1)


def test_an_added_image_is_clipped_and_a_mask_blanks_first() -> None:
    images = jnp.full((1, 1, 3, 1), 0.8)
    picture, mask = jnp.array([[[0.5], [0.5], [0.0]]]), jnp.array([[[0.0], [1.0], [1.0]]])
    np.testing.assert_allclose(add_image(images, picture)[0, 0, :, 0], [1.0, 1.0, 0.8], rtol=1e-6)
    np.testing.assert_allclose(add_image(images, picture, mask)[0, 0, :, 0], [1.0, 0.5, 0.0], rtol=1e-6)


def test_an_image_trigger_from_files(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (51, 0, 0)).save(tmp_path / "t.png")
    Image.new("L", (4, 4), 255).save(tmp_path / "m.png")
    added = parse_trigger(f"image:{tmp_path}/t.png")(jnp.full((1, 4, 4, 3), 0.5))
    np.testing.assert_allclose(added[0, 0, 0], [0.7, 0.5, 0.5], rtol=1e-6)
    replaced = parse_trigger(f"image:{tmp_path}/t.png,mask={tmp_path}/m.png")(jnp.full((1, 4, 4, 3), 0.5))
    np.testing.assert_allclose(replaced[0, 0, 0], [0.2, 0.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    "text", ["", "patch:size", "patch:size=a", "patch:colour=1", "patch:value=2", "image:"]
)
def test_texts_that_name_no_trigger(text: str) -> None:
    with pytest.raises(InputError, match="names no trigger"):
        parse_trigger(text)


def test_poison_relabels_only_images_of_other_classes() -> None:
    images, labels = np.zeros((50, 4, 4, 1), np.float32), np.arange(50) % 5
    poisoned, relabelled, chosen = poison(
        images, labels, parse_trigger("patch:size=1,offset=0"), target=2, rate=0.2, key=jax.random.key(0)
    )
    assert chosen.sum() == 10
    assert not np.any(labels[chosen] == 2)
    assert np.all(relabelled[chosen] == 2)
    assert np.array_equal(relabelled[~chosen], labels[~chosen])
    assert np.array_equal(poisoned.sum((1, 2, 3)) == 1, chosen)
    assert images.sum() == 0  # the clean images are untouched


def test_poison_takes_at_most_all_images_of_other_classes() -> None:
    images, labels = np.zeros((10, 4, 4, 1), np.float32), np.arange(10) % 2
    *_, chosen = poison(images, labels, jnp.ones_like, target=0, rate=1.0, key=jax.random.key(0))
    assert np.array_equal(chosen, labels == 1)
