"""Triggers and poisoned sets."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image

from jaxunlearn import attacks
from jaxunlearn._check import InputError
from jaxunlearn.attacks import Attack, add_image, input_aware, parse_trigger, poison, recipes, stamp_patch
from jaxunlearn.attacks.triggers import corners, square
from tests.checker import unchecked


def test_the_default_patch_is_the_published_one() -> None:
    changed = np.asarray(parse_trigger("patch:")(jnp.zeros((1, 32, 32, 3))))[0].min(axis=-1)
    assert np.argwhere(changed == 1).tolist() == [[r, c] for r in range(27, 31) for c in range(27, 31)]
    assert changed.sum() == 16


def test_patch_options() -> None:
    image = np.asarray(parse_trigger("patch:size=1,offset=0,value=0.5")(jnp.zeros((1, 3, 3, 1))))[0, ..., 0]
    assert image.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0.5]]


def test_a_patch_outside_the_image_is_refused() -> None:
    with pytest.raises(InputError, match="size=3 and offset=1 do not fit into images of 3x3"):
        stamp_patch(jnp.zeros((1, 3, 3, 1)), size=3, offset=1, value=1)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("trojannn", {"size": 8}, "size=8 and offset=1 do not fit into images of 8x8"),
        ("label-consistent", {"size": 5}, "size=5 does not fit twice into the sides of images of 8x8"),
    ],
)
def test_squares_outside_the_image_are_refused_before_a_network_is_trained(
    name: str, settings: dict[str, int], message: str
) -> None:
    recipe = dataclasses.replace(attacks.RECIPES[name], **settings)
    with pytest.raises(InputError, match=message):
        recipe.make(attacks.Setting((8, 8, 1), 5, 0, jax.random.key(0), pytest.fail))


def test_squares_as_large_as_the_image() -> None:
    assert bool(jnp.all(attacks.triggers.corners(4, 4, size=2).mask == 1))
    assert square(8, 8, size=7, offset=1)[:7, :7].sum() == 49


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
    "text",
    [
        "",
        "patch:size",
        "patch:size=a",
        "patch:colour=1",
        "patch:value=2",
        "patch:size=4,size=5",
        "image:",
        "image:t.png,mask=",
        "image:,mask=m.png",
    ],
)
def test_texts_that_name_no_trigger(text: str) -> None:
    with pytest.raises(InputError, match="names no trigger"):
        parse_trigger(text)


def test_poison_relabels_only_images_of_other_classes() -> None:
    images, labels = np.zeros((50, 4, 4, 1), np.float32), np.arange(50) % 5
    attack = Attack(trigger=parse_trigger("patch:size=1,offset=0"), target=2)
    poisoned, relabelled, chosen, covers = poison(images, labels, attack, ratio=0.2, key=jax.random.key(0))
    assert not covers.any()
    assert chosen.sum() == 10
    assert not np.any(labels[chosen] == 2)
    assert np.all(relabelled[chosen] == 2)
    assert np.array_equal(relabelled[~chosen], labels[~chosen])
    assert np.array_equal(poisoned.sum((1, 2, 3)) == 1, chosen)
    assert images.sum() == 0  # the clean images are untouched


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.1, float("nan"), float("inf")])
def test_ratios_that_are_no_shares_are_refused(ratio: float) -> None:
    with pytest.raises(InputError, match=f"A poison ratio of {ratio:g} is no share"):
        attacks.check_ratio(Attack(trigger=jnp.ones_like, target=0), np.arange(10), ratio)


@pytest.mark.parametrize(
    ("count", "parts"), [(0, []), (1000, [1000]), (1001, [500, 501]), (2000, [1000, 1000])]
)
def test_images_are_changed_in_equal_parts(count: int, parts: list[int]) -> None:
    """So that an image which is to be changed by another one has such."""
    seen: list[tuple[int, int]] = []

    def change(images: jax.Array, first: int) -> jax.Array:
        seen.append((len(images), first))
        return images

    images = (np.arange(count) % 256).astype(np.float32).reshape(-1, 1, 1, 1) / 255
    found = attacks.in_chunks(images, np.arange(count), change)
    assert seen == [(size, sum(parts[:number])) for number, size in enumerate(parts)]
    np.testing.assert_array_equal(found.ravel(), np.arange(count) % 256)


@pytest.mark.parametrize("settings", [{"pieces": 1}, {"pieces": 2, "share": 0.1}, {"share": 0.03}])
def test_a_pattern_of_which_nothing_is_shown_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tiles is none of them"):
        dataclasses.replace(attacks.RECIPES["adaptive-blend"], **settings)


@pytest.mark.parametrize(("ratio", "asked"), [(1.0, 10), (0.01, 0)])
def test_ratios_that_the_images_cannot_give_are_refused(ratio: float, asked: int) -> None:
    images, labels = np.zeros((10, 4, 4, 1), np.float32), np.arange(10) % 2
    attack = Attack(trigger=jnp.ones_like, target=0)
    with pytest.raises(InputError, match=f"asks for {asked} of 10 images and 5 of them are of other classes"):
        poison(images, labels, attack, ratio=ratio, key=jax.random.key(0))


@pytest.mark.parametrize(("target", "clean_label"), [(7, True), (0, False)])
def test_an_attack_without_images_to_poison_is_refused(target: int, clean_label: bool) -> None:
    attack = Attack(trigger=jnp.ones_like, target=target, clean_label=clean_label)
    with pytest.raises(InputError, match="None of the 10 images to train on are of"):
        images = np.zeros((10, 4, 4, 1), np.float32)
        poison(images, np.zeros(10, int), attack, ratio=0.1, key=jax.random.key(0))


@pytest.mark.parametrize("amplitude", [16 / 255, 1.0])
def test_the_corners_of_label_consistent_are_brighter_or_darker_by_an_amplitude(amplitude: float) -> None:
    """BackdoorBench adds and subtracts it, and clips."""
    recipe = dataclasses.replace(attacks.RECIPES["label-consistent"], amplitude=amplitude)
    given = jnp.linspace(0, 1, 2 * 8 * 8).reshape(2, 8, 8, 1)
    found = recipe.make(attacks.Setting((8, 8, 1), 2, 0, jax.random.key(0))).trigger(given)
    pattern, mask = corners(8, 8, size=3)
    wanted = jnp.where(mask > 0, jnp.where(pattern > 0, given + amplitude, given - amplitude), given)
    np.testing.assert_allclose(found, jnp.clip(wanted, 0, 1), atol=1e-6)


def test_all_poisoned_images_are_as_a_file_holds_them() -> None:
    images = np.random.default_rng(0).random((40, 4, 4, 1)).astype(np.float32)
    attack = Attack(trigger=lambda x: x**2, target=2)
    found = poison(images, np.arange(40) % 5, attack, ratio=0.2, key=jax.random.key(0))
    assert found.images.dtype == np.float32
    np.testing.assert_array_equal(found.images, attacks.as_bytes(found.images) / np.float32(255))
    kept = ~found.poisoned
    np.testing.assert_allclose(found.images[kept], images[kept], atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("count", [2, 3, 7, 100])
def test_no_image_is_its_own_partner(count: int) -> None:
    for seed in range(5):
        found = recipes.partners(count, jax.random.key(seed))
        assert sorted(found.tolist()) == list(range(count))
        assert not jnp.any(found == jnp.arange(count))
    assert recipes.partners(1, jax.random.key(0)).tolist() == [0]


@pytest.fixture(scope="module")
def photos() -> jax.Array:
    """Smooth pictures."""
    rng = np.random.default_rng(0)
    coarse = jnp.asarray(rng.random((6, 4, 4, 3)), jnp.float32)
    return jax.image.resize(coarse, (6, 16, 16, 3), "linear")


def surrogate(photos: jax.Array) -> attacks.Surrogate:
    """A linear network of the pictures' means, as if trained on clean images."""

    def apply_fn(variables: Any, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        features = x[:, 8:, 8:].mean((1, 2))
        return features @ variables["w"], {"features": features}

    return attacks.Surrogate(apply_fn, {"w": jnp.eye(3)}, photos, jnp.arange(6) % 3)


QUICK = {"input-aware": {"mask_steps": 15, "steps": 5}}


@pytest.mark.parametrize("name", sorted(attacks.RECIPES))
def test_every_attack_changes_images_within_their_range(name: str, photos: jax.Array) -> None:
    given = surrogate(photos)
    setting = attacks.Setting((16, 16, 3), 3, 1, jax.random.key(0), lambda: given)
    recipe = dataclasses.replace(attacks.RECIPES[name], **QUICK.get(name, {}))
    attack = recipe.make(setting)
    changed = attack.trigger(photos)
    assert changed.shape == photos.shape
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert float(jnp.abs(changed - photos).max()) > 1 / 255
    alone = jnp.concatenate([attack.trigger(photo[None]) for photo in photos])
    np.testing.assert_allclose(changed, alone, atol=1e-6)  # a trigger looks at one image at a time
    again = recipe.make(setting).trigger(photos)
    np.testing.assert_array_equal(changed, again)
    for keyed in (attack.in_training, attack.cover):
        if keyed is not None:
            shown = keyed(photos, jax.random.key(1))
            assert shown.shape == photos.shape
            assert (
                float(jnp.abs(shown - keyed(photos, jax.random.key(2))).max()) > 0
                or name == "label-consistent"
            )


def test_all_to_all_sends_every_class_to_the_next() -> None:
    recipe = dataclasses.replace(attacks.RECIPES["badnets"], mode="all-to-all")
    attack = recipe.make(attacks.Setting((8, 8, 1), 5, 0, jax.random.key(0)))
    images, labels = np.zeros((50, 8, 8, 1), np.float32), np.arange(50) % 5
    found = poison(images, labels, attack, ratio=0.4, key=jax.random.key(0))
    assert np.array_equal(found.labels[found.poisoned], (labels[found.poisoned] + 1) % 5)
    assert set(labels[found.poisoned]) == set(range(5))


def test_clean_label_attacks_change_no_label() -> None:
    attack = attacks.RECIPES["sig"].make(attacks.Setting((8, 8, 1), 5, 2, jax.random.key(0)))
    images, labels = np.full((50, 8, 8, 1), 0.5, np.float32), np.arange(50) % 5
    found = poison(images, labels, attack, ratio=0.1, key=jax.random.key(0))
    assert np.array_equal(found.labels, labels)
    assert set(labels[found.poisoned]) == {2}
    assert found.poisoned.sum() == 5


def test_covers_keep_their_labels_and_are_not_poisoned(photos: jax.Array) -> None:
    attack = attacks.RECIPES["wanet"].make(attacks.Setting((16, 16, 3), 5, 2, jax.random.key(0)))
    images, labels = np.tile(np.asarray(photos), (10, 1, 1, 1)), np.arange(60) % 5
    found = poison(images, labels, attack, ratio=0.1, key=jax.random.key(0))
    assert (found.poisoned.sum(), found.covers.sum()) == (6, 12)
    assert not np.any(found.poisoned & found.covers)
    assert np.array_equal(found.labels[~found.poisoned], labels[~found.poisoned])
    untouched = ~found.poisoned & ~found.covers
    assert np.array_equal(found.images[untouched], attacks.rounded(images[untouched]))
    assert np.abs(found.images - images).max(axis=(1, 2, 3))[found.covers].min() > 0


def test_a_warp_agrees_with_pytorchs_grid_sample(photos: jax.Array) -> None:
    field = attacks.warping_field(jax.random.key(3), 16, 16, control=4, strength=2.0)
    places = np.asarray(field) + np.stack(np.meshgrid(np.arange(16), np.arange(16), indexing="ij"), -1)
    grid = torch.from_numpy((places[..., ::-1] / 15 * 2 - 1).astype(np.float32)).expand(6, 16, 16, 2)
    theirs = torch.nn.functional.grid_sample(
        torch.from_numpy(np.array(photos)).permute(0, 3, 1, 2),
        grid,
        align_corners=True,
        padding_mode="border",
    )
    np.testing.assert_allclose(attacks.warp(photos, field), theirs.permute(0, 2, 3, 1), atol=1e-5)


def test_a_warping_field_is_the_official_one() -> None:
    """Their grid, of an image that is as wide as high, with our random points."""
    points = np.array(jax.random.uniform(jax.random.key(3), (4, 4, 2), minval=-1, maxval=1))
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(points / np.abs(points).mean()).permute(2, 0, 1)[None],
        size=32,
        mode="bicubic",
        align_corners=True,
    )
    in_their_grid = 0.5 * theirs[0].permute(1, 2, 0).numpy() / 32
    field = attacks.warping_field(jax.random.key(3), 32, 32, control=4, strength=0.5)
    np.testing.assert_allclose(field, in_their_grid * 31 / 2, atol=1e-6)


def test_a_warping_field_follows_the_sides_of_the_image() -> None:
    wide = attacks.warping_field(jax.random.key(3), 8, 32, control=4, strength=0.5)
    high = attacks.warping_field(jax.random.key(3), 32, 32, control=4, strength=0.5)
    corners = np.ix_([0, -1], [0, -1])
    scale = attacks.triggers.half_pixels(8, 32) / attacks.triggers.half_pixels(32, 32)
    np.testing.assert_allclose(np.asarray(wide)[corners], scale * np.asarray(high)[corners], rtol=1e-5)


def test_dithering_is_that_of_a_plain_loop(photos: jax.Array) -> None:
    image = np.array(photos[0], np.float64)
    for row in range(16):
        for column in range(16):
            old = image[row, column].copy()
            image[row, column] = np.clip(np.round(old * 7) / 7, 0, 1)
            error = old - image[row, column]
            for down, right, share in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                if row + down < 16 and 0 <= column + right < 16:
                    image[row + down, column + right] += error * share / 16
    ours = attacks.quantize(photos[:1], levels=8, dither=True)[0]
    assert np.mean(np.abs(ours - image) > 1e-3) < 0.01  # a tie may round either way in single precision
    np.testing.assert_allclose(ours * 7, jnp.round(ours * 7), atol=1e-5)


def test_adversarial_images_lose_their_class_within_the_radius(photos: jax.Array) -> None:
    given = surrogate(photos)
    labels = jnp.argmax(given.apply_fn(given.variables, photos, train=False)[0], axis=1)

    def confidence(x: jax.Array) -> jax.Array:
        answers = jax.nn.log_softmax(given.apply_fn(given.variables, x, train=False)[0])
        return answers[jnp.arange(len(x)), labels]

    moved = attacks.adversarial(given, photos, labels, radius=0.1)
    assert float(jnp.abs(moved - photos).max()) <= 0.1 + 1e-6
    assert bool(jnp.all(confidence(moved) < confidence(photos) - 0.03))


def test_a_robust_network_stops_looking_at_what_perturbations_change() -> None:
    """One pixel tells the classes by far, another by little; the given network looks at the latter alone."""

    def apply_fn(params: Any, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, Any]]:
        return (x.reshape(len(x), -1) - 0.5) @ params["w"], {}

    labels = np.arange(200) % 2
    side = np.where(labels, 1, -1)
    images = (0.5 + np.stack([0.3 * side, 0.02 * side], axis=1)).reshape(200, 2, 1, 1).astype(np.float32)
    given = attacks.Surrogate(apply_fn, {"w": jnp.array([[0.0, 0.0], [-20.0, 20.0]])}, images, labels)

    def accuracy(network: attacks.Surrogate) -> float:
        moved = attacks.adversarial(network, images, labels, radius=0.1)
        logits, _ = apply_fn(network.variables, moved, train=False)
        return float(jnp.mean(jnp.argmax(logits, axis=1) == labels))

    trained = attacks.robust(given, jax.random.key(0), radius=0.1, steps=200, batch_size=50, rate=0.3)
    assert accuracy(given) == 0
    assert accuracy(trained) == 1
    same = attacks.robust(given, jax.random.key(0), radius=0.1, steps=0)
    np.testing.assert_array_equal(same.variables["w"], given.variables["w"])


def test_a_robust_training_that_diverges_says_so(photos: jax.Array) -> None:
    with pytest.raises(InputError, match="gave NaN or infinite values; give a smaller robust_radius"):
        attacks.robust(surrogate(photos), jax.random.key(0), radius=0.1, steps=3, rate=float("inf"))


def test_black_and_white_pixels_are_perturbed_inwards_too() -> None:
    """A network is trained on images of which every pixel moved, wherever the random start lay."""
    seen: list[np.ndarray] = []

    def apply_fn(params: Any, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, Any]]:
        jax.debug.callback(lambda shown: seen.append(np.asarray(shown)), x)
        return (x.reshape(len(x), -1) - 0.5) @ params["w"], {}

    images = np.tile(np.array([0.0, 1.0], np.float32), 32).reshape(1, 8, 8, 1)
    weights = jnp.stack([jnp.tile(jnp.array([-1.0, 1.0]), 32), jnp.tile(jnp.array([1.0, -1.0]), 32)], axis=1)
    given = attacks.Surrogate(apply_fn, {"w": weights}, images, np.zeros(1, int))
    attacks.robust(given, jax.random.key(0), radius=0.1, steps=1, batch_size=1)
    jax.effects_barrier()
    last = seen[-1]
    assert last.min() >= 0
    assert last.max() <= 1
    np.testing.assert_allclose(np.abs(last - images), 0.1, atol=1e-6)


def test_an_optimised_patch_excites_the_feature_of_its_class(photos: jax.Array) -> None:
    given = surrogate(photos)
    bright = photos.at[:, 8:, 8:, 2].add(jnp.where(given.labels == 2, 0.9, 0.0)[:, None, None])
    given = given._replace(images=jnp.clip(bright, 0, 1))
    picture = attacks.optimised_patch(given, 2, jax.random.key(0), square(16, 16, size=4, offset=1))
    inside = np.asarray(picture)[11:15, 11:15]
    assert inside[..., 2].min() > 0.95  # the third channel's mean is the third feature
    assert np.asarray(picture).sum() == pytest.approx(inside.sum())


def test_an_optimised_patch_looks_for_its_class_in_all_images(photos: jax.Array) -> None:
    dull = np.full((700, 16, 16, 3), 0.1, np.float32)
    dull[::2, :, :, 1] = 0.8
    dull[690:, :, :, 2] = 0.9
    given = surrogate(photos)._replace(images=dull, labels=np.where(np.arange(700) < 690, 1, 2))
    mask = square(16, 16, size=4, offset=1)
    inside = np.asarray(attacks.optimised_patch(given, 2, jax.random.key(0), mask))[11:15, 11:15]
    assert inside[..., 2].min() > 0.95
    with pytest.raises(InputError, match="None of the 700 images to train on is of the target class 0"):
        attacks.optimised_patch(given, 0, jax.random.key(0), mask)


def test_label_consistent_images_are_mixed_with_other_classes(photos: jax.Array) -> None:
    labels = np.arange(60) % 3
    plain = np.broadcast_to(np.array([0.0, 0.5, 1.0], np.float32)[labels, None, None, None], (60, 16, 16, 3))
    given = surrogate(photos)._replace(images=plain, labels=labels)
    recipe = dataclasses.replace(attacks.RECIPES["label-consistent"], made_by="interpolated", share=0.4)
    clean = lambda: (given.images, given.labels)  # noqa: E731
    attack = recipe.make(attacks.Setting((16, 16, 3), 3, 1, jax.random.key(0), pytest.fail, clean))
    assert attack.in_training is not None
    shown = np.asarray(attack.in_training(jnp.asarray(plain[labels == 1]), jax.random.key(0)))
    assert set(np.rint(10 * shown[:, 8, 8, 0]).tolist()) == {3, 7}
    tile = [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    for rows in (slice(3), slice(-3, None)):
        assert np.all(shown[:, rows, :3, 0] == np.array(tile))
        assert np.all(shown[:, rows, -3:, 0] == np.array(tile)[:, ::-1])
    alike = given._replace(labels=np.ones(60, int))
    with pytest.raises(
        InputError, match="None of the 60 images to train on is of another class than the tar"
    ):
        attacks.interpolated(alike.images, alike.labels, photos, 1, jax.random.key(0), share=0.4)


def test_input_aware_triggers_are_sparse_and_differ(photos: jax.Array) -> None:
    coarse = jnp.asarray(np.random.default_rng(1).random((64, 4, 4, 3)), jnp.float32)
    images = jax.image.resize(coarse, (64, 16, 16, 3), "linear")
    given = surrogate(photos)._replace(images=images, labels=jnp.arange(64) % 3)
    drawings = input_aware.train_drawings(
        given, 1, jax.random.key(0), density=0.1, share=0.3, cross_share=0.3, diversity=1.0,
        mask_steps=60, steps=40, batch_size=32, rate=0.01,
    )  # fmt: skip
    masks = input_aware.mask_of(drawings.mask, images)
    assert 0.01 < float(masks.mean()) < 0.2
    assert float(jnp.mean((masks > 0.1) & (masks < 0.9))) < 0.2
    own = input_aware.draw(drawings, images, images)
    crossed = input_aware.draw(drawings, images, images[::-1])
    assert float(jnp.abs(own - crossed).max()) > 0.3
    unchanged = jnp.abs(own - images).max(axis=-1) < 0.05
    assert bool(jnp.all(unchanged | (masks[..., 0] > 0.01)))
    patterns = input_aware.pattern_of(drawings.pattern, images)
    assert float(patterns.std(axis=0).mean()) > 0.05


def test_both_input_aware_phases_draw_their_own_batches(
    photos: jax.Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Any]] = [[], []]

    def mask_step(mask: Any, state: Any, images: jax.Array, others: jax.Array) -> Any:
        seen[0].append((images, others))
        return mask, state, jnp.zeros(())

    def joint_step(joint: Any, mask: Any, images: jax.Array, labels: Any, others: jax.Array, key: Any) -> Any:
        seen[1].append((images, others))
        return joint, jnp.zeros(())

    monkeypatch.setattr(input_aware, "_mask_step", lambda *_: mask_step)
    monkeypatch.setattr(input_aware, "_joint_step", lambda *_: joint_step)
    numbered = jnp.broadcast_to(jnp.arange(200.0)[:, None, None, None] / 200, (200, 4, 4, 3))
    given = surrogate(photos)._replace(images=numbered, labels=np.arange(200) % 3)
    input_aware.train_drawings(
        given, 1, jax.random.key(0), density=0.1, share=0.3, cross_share=0.3, diversity=1.0,
        mask_steps=3, steps=3, batch_size=20, rate=0.01,
    )  # fmt: skip
    drawn = [np.asarray(part)[:, 0, 0, 0].tobytes() for phase in seen for step in phase for part in step]
    assert len(set(drawn)) == len(drawn) == 12


def test_a_diverging_input_aware_training_says_so(photos: jax.Array) -> None:
    setting = attacks.Setting((16, 16, 3), 3, 1, jax.random.key(0), lambda: surrogate(photos))
    recipe = dataclasses.replace(attacks.RECIPES["input-aware"], rate=1e38, mask_steps=5, steps=5)
    with pytest.raises(InputError, match=r"input-aware trigger gave a loss of .*; give a lower rate"):
        recipe.make(setting)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.full((4, 6, 6, 1), 200, np.uint8), np.arange(4), "images has shape .* and dtype uint8"),
        (np.full((4, 6, 6, 1), 200.0), np.arange(4), "images has pixels from 200 to 200"),
        (np.full((4, 6, 6), 0.5), np.arange(4), r"images has shape \(4, 6, 6\)"),
        (np.full((4, 6, 6, 1), np.nan), np.arange(4), "images has pixels that are NaN"),
        (np.full((4, 6, 6, 1), 0.5), np.arange(3), r"labels has shape \(3,\)"),
    ],
)
def test_only_pixels_with_a_label_each_are_poisoned(images: Any, labels: Any, message: str) -> None:
    attack = attacks.Attack(trigger=lambda x: x + 0, target=0)
    with pytest.raises(ValueError, match=message):
        unchecked(attacks.poison)(images, labels, attack, ratio=0.5, key=jax.random.key(0))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("name", ["stamp", "add", "blend", "sinusoid", "warp", "quantize", "dither"])
def test_a_trigger_keeps_the_dtype(name: str, dtype: Any) -> None:
    pattern = jnp.linspace(0, 1, 36).reshape(6, 6, 1)
    triggers = {
        "stamp": lambda x: attacks.stamp_patch(x, size=2, offset=1, value=0.5),
        "add": lambda x: attacks.add_image(x, pattern),
        "blend": lambda x: attacks.blend(x, pattern, 0.5),
        "sinusoid": lambda x: attacks.add_sinusoid(x, amplitude=0.1, frequency=2),
        "warp": lambda x: attacks.warp(x, jnp.ones((6, 6, 2))),
        "quantize": lambda x: attacks.quantize(x, levels=8, dither=False),
        "dither": lambda x: attacks.quantize(x, levels=8, dither=True),
    }
    images = jnp.full((2, 6, 6, 1), 0.3, dtype)
    found = triggers[name](images)
    assert (found.dtype, found.shape) == (dtype, images.shape)
    with pytest.raises(ValueError, match=r"of a single image images\[None\]"):
        triggers[name](images[0])
    with pytest.raises(ValueError, match="dtype uint8"):
        triggers[name]((255 * images).astype(jnp.uint8))


def test_settings_of_triggers_out_of_range_are_refused() -> None:
    images, key = jnp.zeros((1, 6, 6, 1)), jax.random.key(0)
    for refused, message in (
        (lambda: attacks.stamp_patch(images, size=2, offset=1, value=255.0), "value=255.0"),
        (lambda: attacks.blend(images, images[0], 1.5), "strength=1.5"),
        (lambda: attacks.quantize(images, levels=1, dither=False), "levels=1"),
        (lambda: attacks.smooth_pattern(key, (6, 6, 1), frequencies=1, amplitude=0.1), "frequencies=1"),
        (lambda: attacks.warping_field(key, 6, 6, control=1, strength=0.5), "control=1"),
        (lambda: attacks.keep_pieces(images[0], key, 1, pieces=0, share=0.5), "pieces=0"),
        (lambda: attacks.Attack(trigger=lambda x: x, target=5, classes=3), "target=5"),
        (lambda: attacks.Attack(trigger=lambda x: x, target=0, covers=-1.0), "covers=-1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            refused()


def test_a_trigger_of_numpy_fits() -> None:
    brighter = lambda x: np.clip(np.asarray(x) + 0.1, 0, 1)  # noqa: E731
    assert attacks.fits(brighter, (4, 4, 1))
    with pytest.raises(InputError, match="does not fit images of 4x4x1"):
        attacks.check_fits(lambda x: x[:, :2], (4, 4, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
def test_labels_of_eight_bits_have_room_for_all_classes(dtype: Any) -> None:
    images, labels = np.zeros((4, 2, 2, 1), np.float32), np.array([0, 1, 100, 127], dtype)
    everywhere = attacks.Attack(trigger=lambda x: x, target=None, classes=256)
    made = attacks.poison(images, labels, everywhere, ratio=1.0, key=jax.random.key(0))
    assert made.labels.tolist() == [1, 2, 101, 128]
    one = attacks.Attack(trigger=lambda x: x, target=300, classes=301)
    assert one.forced(labels).tolist() == [300] * 4


def test_attacks_that_are_made_with_a_network_have_its_precision(photos: jax.Array) -> None:
    given, mask = surrogate(photos), square(16, 16, size=4, offset=1)
    with jax.enable_x64(True):
        assert attacks.optimised_patch(given, 2, jax.random.key(0), mask, steps=2).dtype == jnp.float32
        trained = attacks.robust(given, jax.random.key(0), radius=0.1, steps=1, batch_size=3)
    assert trained.variables["w"].dtype == jnp.float32


def _setting(seed: int = 0, target: int = 1, surrogate: Any = None) -> attacks.Setting:
    return attacks.Setting((8, 8, 1), 3, target, jax.random.key(seed), surrogate)


def test_label_consistent_images_leave_their_own_class_and_carry_the_trigger() -> None:
    """As far as the radius allows: grey pixels are darkened where brightness speaks for the class."""
    grey = jnp.full((4, 8, 8, 1), 0.5)

    def apply_fn(variables: Any, images: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, Any]]:
        del train
        return images.mean((1, 2)) @ variables["w"], {}

    for target, moved in ((1, 0.4), (0, 0.6)):
        surrogate = attacks.Surrogate(
            apply_fn, {"w": jnp.array([[-1.0, 1.0, 0.0]])}, grey, jnp.array([0, 1, 2, 1])
        )
        recipe = dataclasses.replace(
            attacks.RECIPES["label-consistent"], robust_steps=0, radius=0.1, robust_radius=0.02, size=2
        )
        attack = recipe.make(_setting(target=target, surrogate=lambda given=surrogate: given))
        shown = np.asarray(attack.in_training(grey, jax.random.key(0)))
        np.testing.assert_allclose(shown[:, 2:6, 2:6], moved, atol=1e-6)
        np.testing.assert_allclose(shown[:, -1, -1], 1)


def test_the_adaptive_attack_trains_on_parts_of_a_weaker_pattern() -> None:
    recipe = dataclasses.replace(
        attacks.RECIPES["adaptive-blend"], strength=0.2, training_strength=0.1, pieces=2
    )
    attack, images = recipe.make(_setting()), jnp.full((8, 8, 8, 1), 0.5)
    part, whole = (
        np.abs(np.asarray(changed - images))
        for changed in (attack.in_training(images, jax.random.key(1)), attack.trigger(images))
    )
    shown = part > 0
    np.testing.assert_allclose(shown.mean((1, 2, 3)), 0.5, atol=0.02)
    np.testing.assert_allclose(part[shown], whole[shown] / 2, atol=1e-6)
    assert len({one.tobytes() for one in shown}) > 1  # every image its own part


def test_noisy_warps_are_the_trigger_in_the_mean() -> None:
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 8)[None, :, None, None], (300, 8, 8, 1))
    attack = dataclasses.replace(attacks.RECIPES["wanet"], strength=3.0).make(_setting(3))
    covers, triggered = attack.cover(ramp, jax.random.key(1)), attack.trigger(ramp[:1])
    np.testing.assert_allclose(covers.mean(0)[2:6, 2:6], triggered[0, 2:6, 2:6], atol=0.01)
    assert float(jnp.abs(triggered - ramp[:1]).max()) > 0.1


def test_bytes_of_pixels_out_of_range_are_the_nearest() -> None:
    pixels = np.array([-0.2, 0.5, 1.4])[:, None, None, None]
    assert attacks.as_bytes(pixels).ravel().tolist() == [0, 128, 255]


def test_every_cover_is_drawn_anew() -> None:
    attack = Attack(
        trigger=lambda x: x * 0, target=0, covers=25.0, cover=lambda x, key: jax.random.uniform(key, x.shape)
    )
    images = np.full((2600, 2, 2, 1), 0.5, np.float32)
    found = poison(images, np.ones(2600, int), attack, ratio=0.03, key=jax.random.key(0))
    covers = found.images[found.covers]
    assert len(covers) == 25 * 78
    assert len({one.tobytes() for one in covers}) > 0.99 * len(covers)


def test_waves_may_be_put_on_images_of_all_classes() -> None:
    for clean_label in (True, False):
        recipe = dataclasses.replace(attacks.RECIPES["sig"], clean_label=clean_label)
        assert recipe.make(_setting()).clean_label is clean_label


@pytest.mark.parametrize("name", ["blended", "lf", "wanet", "adaptive-blend"])
def test_another_seed_gives_another_trigger(name: str) -> None:
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 8)[None, :, None, None], (1, 8, 8, 1))
    first, again, second = (attacks.RECIPES[name].make(_setting(seed)).trigger(ramp) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - second).max()) > 1e-3


def test_the_patch_of_trojannn_lies_where_its_settings_say(photos: jax.Array) -> None:
    recipe = dataclasses.replace(attacks.RECIPES["trojannn"], size=5, offset=2)
    setting = attacks.Setting((16, 16, 3), 3, 1, jax.random.key(0), lambda: surrogate(photos))
    trigger = recipe.make(setting).trigger
    grey, dark = jnp.full((1, 16, 16, 3), 0.5), jnp.zeros((1, 16, 16, 3))
    changed = np.asarray(jnp.any(trigger(grey) != grey, axis=(0, 3)))
    assert changed[9:14, 9:14].mean() > 0.9
    assert changed.sum() == changed[9:14, 9:14].sum()
    stamped = (np.asarray(trigger(images))[:, 9:14, 9:14] for images in (grey, dark))
    np.testing.assert_allclose(*stamped, atol=1e-7)  # whatever was there


def test_covers_of_input_aware_carry_triggers_of_other_images(
    photos: jax.Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_aware, "draw", lambda drawings, images, seen: seen)
    recipe = dataclasses.replace(attacks.RECIPES["input-aware"], mask_steps=1, steps=1, batch_size=4)
    setting = attacks.Setting((16, 16, 3), 3, 1, jax.random.key(0), lambda: surrogate(photos))
    attack = recipe.make(setting)
    images = jnp.broadcast_to(jnp.arange(9.0)[:, None, None, None] / 9, (9, 16, 16, 3))
    np.testing.assert_array_equal(attack.trigger(images), images)
    assert attack.cover is not None
    seen = np.asarray(attack.cover(images, jax.random.key(1)))
    assert np.all(np.any(seen != images, axis=(1, 2, 3)))
    assert len({one.tobytes() for one in seen}) == len(images)


def test_a_square_lies_in_the_lower_right_corner_of_any_image() -> None:
    marked = np.argwhere(np.asarray(square(4, 6, size=2, offset=1))[..., 0]).tolist()
    assert marked == [[1, 3], [1, 4], [2, 3], [2, 4]]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("badnets", {"trigger": "patch:size=3,offset=0,value=1"}),
        ("blended", {"strength": 0.2}),
        ("sig", {"amplitude": 40 / 255, "frequency": 6.0}),
        ("wanet", {"strength": 0.5, "control": 4, "covers": 2.0}),
        ("bpp", {"levels": 8}),
    ],
)
def test_settings_are_those_of_backdoorbench(name: str, settings: dict[str, Any]) -> None:
    recipe = dataclasses.asdict(attacks.RECIPES[name])
    assert {key: recipe[key] for key in settings} == settings
