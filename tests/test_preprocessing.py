"""Finding the normalisation of a network's inputs."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from converters import convert, torch_io
from jaxunlearn import (
    NORMALIZATIONS,
    TRAINING,
    InputError,
    Preprocessing,
    choose_preprocessing,
    evaluate,
    fit,
)
from jaxunlearn.data import load
from jaxunlearn.inputs import Request, read
from jaxunlearn.metrics import Count
from jaxunlearn.models import ModelSpec, small_vgg
from jaxunlearn.preprocessing import Choice


def nearest(variables: Any, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, Any]]:
    """The class is that of the nearest of some colours, all in normalised input."""
    return -jnp.sum((x.mean((1, 2))[:, None] - variables["colours"]) ** 2, axis=-1), {}


def colours(true: Preprocessing, count: int = 300) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """A network that answers rightly behind ``true``, with images of 40 colours that lie close together."""
    rng = np.random.default_rng(0)
    path = np.linspace(0, 1, 40, dtype=np.float32)
    centres = np.stack([path, 0.3 + 0.4 * path**2, 1 - path**3], axis=1)
    labels = rng.integers(0, len(path), count).astype(np.int32)
    noisy = centres[labels] + rng.normal(0, 0.003, (count, 3))
    images = np.clip(noisy, 0, 1)[:, None, None].astype(np.float32)
    return {"colours": true(centres[:, None, None])[:, 0, 0]}, images, labels


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("name", [name for name in NORMALIZATIONS if name != "tiny"])
def test_the_true_one_is_found(name: str, bgr: bool) -> None:
    true = dataclasses.replace(NORMALIZATIONS[name], bgr=bgr)
    variables, images, labels = colours(true)
    choice = choose_preprocessing(nearest, variables, images, labels)
    assert (choice.preprocessing, choice.chosen, choice.implausible) == (true, "by accuracy", False)
    assert len(choice.accuracies) == (14 if bgr else 8)
    assert choice.accuracies[true].total == 200
    assert choice.accuracies[true].rate > 0.95
    assert evaluate(true.before(nearest), variables, images, labels).acc.rate > 0.95
    assert choose_preprocessing(nearest, variables, images, labels, bgr=bgr).preprocessing == true


def test_of_two_that_the_sample_cannot_tell_apart_the_earlier_is_taken() -> None:
    variables, images, labels = colours(NORMALIZATIONS["tiny"])
    choice = choose_preprocessing(nearest, variables, images, labels)
    hits = [choice.accuracies[NORMALIZATIONS[name]].hits for name in ("imagenet", "tiny")]
    assert hits == [200, 200]
    assert str(choice.preprocessing) == "imagenet"
    assert "runner-up tiny" in choice.describe()


def test_what_is_known_is_not_tried() -> None:
    variables, images, labels = colours(NORMALIZATIONS["cifar10"])
    choice = choose_preprocessing(
        nearest, variables, images, labels, normalization=NORMALIZATIONS["half"], bgr=True
    )
    assert str(choice.preprocessing) == "half, bgr"
    assert list(choice.accuracies) == [choice.preprocessing]
    assert (choice.chosen, choice.implausible) == ("by the user", True)


@pytest.mark.parametrize(
    ("hits", "commonest", "implausible"),
    [
        (99, 20, True),
        (100, 20, False),
        (110, 100, True),
        (120, 100, False),
        (196, 190, True),
        (200, 198, False),
    ],
)
def test_plausibility_is_half_and_above_the_commonest_class(
    hits: int, commonest: int, implausible: bool
) -> None:
    none = NORMALIZATIONS["none"]
    choice = Choice(none, "by accuracy", {none: Count(hits, 200)}, Count(commonest, 200))
    assert choice.implausible is implausible


@pytest.fixture(scope="module")
def normalised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network that was trained on digits with mean and deviation one half."""
    path = tmp_path_factory.mktemp("normalised") / "model.pth"
    spec, digits = small_vgg(10, (8, 8, 1), (16, 32, 64)), load("digits[:1000]")
    network, variables = NORMALIZATIONS["half"].before(spec.apply), spec.init(jax.random.key(0))
    config = dataclasses.replace(TRAINING, rounds=6, batch_size=50)
    variables = fit(network, variables, digits.images, digits.labels, config, jax.random.key(1))
    arrays = convert.to_torch(spec, jax.tree.map(np.asarray, variables))
    path.write_bytes(torch_io.new_state_dict_bytes(arrays))
    return path


def request(checkpoint: Path, **changes: Any) -> Request:
    asked = Request(
        checkpoint=checkpoint,
        clean="digits[1000:1300]",
        test="digits[1300:]",
        trigger=None,
        target=None,
        preset="default",
        config=None,
        seed=0,
        out=checkpoint.parent / "out",
        resume=False,
        force=False,
    )
    return dataclasses.replace(asked, **changes)


def test_a_run_finds_the_normalisation_of_a_trained_network(normalised: Path) -> None:
    inputs = read(request(normalised))
    assert str(inputs.preprocessing.preprocessing) == "half"
    assert inputs.warnings == []
    assert any("normalised as half (by accuracy)" in notice for notice in inputs.notices)
    told = inputs.preprocessing.as_dict()
    assert (told["name"], told["mean"], told["std"], told["channels"]) == ("half", [0.5], [0.5], "rgb")
    assert (told["chosen"], told["images"], set(told["accuracies"])) == ("by accuracy", 200, {"none", "half"})
    accuracy = inputs.judge(inputs.model.variables).acc.rate
    assert accuracy > 0.8
    wrong = read(request(normalised, normalize="none"))
    assert wrong.preprocessing.chosen == "by the user"
    assert wrong.judge(wrong.model.variables).acc.rate < accuracy - 0.1


def test_pictures_come_to_the_size_that_is_asked_for(
    normalised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, image in enumerate(load("digits[1000:1060]").images):
        (tmp_path / str(number % 2)).mkdir(exist_ok=True)
        pixels = np.rint(image[..., 0] * 255).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
        Image.fromarray(pixels).save(tmp_path / str(number % 2) / f"{number}.png")
    monkeypatch.setattr(ModelSpec, "any_size", True, raising=False)
    inputs = read(request(normalised, clean=f"folder:{tmp_path}", size=8))
    assert inputs.clean.images.shape[1:] == inputs.model.spec.image_shape == (8, 8, 1)
    assert any("other sizes than 8x8 (height x width, 16x16)" in notice for notice in inputs.notices)


@pytest.mark.parametrize(("side", "size"), [(28, None), (31, None), (28, 28)])
def test_a_small_vgg_takes_all_sizes_that_its_poolings_bring_to_one(
    side: int, size: int | None, tmp_path: Path
) -> None:
    spec = small_vgg(10, (side, side, 1), (2, 2, 2))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), spec.shapes())
    (tmp_path / "model.pth").write_bytes(torch_io.new_state_dict_bytes(convert.to_torch(spec, zeros)))
    arrays = np.arange(60 * side * side).reshape(60, side, side, 1).astype(np.uint8)
    np.savez(tmp_path / "own.npz", x=arrays, y=np.arange(60) % 10)
    inputs = read(request(tmp_path / "model.pth", clean=f"npz:{tmp_path}/own.npz", test=None, size=size))
    assert inputs.clean.images.shape[1:] == inputs.model.spec.image_shape == (side, side, 1)
    with pytest.raises(InputError, match="takes images of 24x24 only"):
        read(request(tmp_path / "model.pth", clean=f"npz:{tmp_path}/own.npz", test=None, size=32))


def test_a_wrong_normalisation_is_a_warning(normalised: Path) -> None:
    (warning,) = read(request(normalised, normalize="40/0.5")).warnings
    assert "--normalize" in warning


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"normalize": "cifar10"}, "of 3 channels and the model takes images of 1"),
        ({"normalize": "0.5"}, "is no normalisation"),
        ({"channels": "bgr"}, "leave --channels bgr away"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    normalised: Path, flags: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(request(normalised, **flags))
