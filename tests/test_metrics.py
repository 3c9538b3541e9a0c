"""Counts and rates, on predictions that are counted by hand."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import losses, metrics
from jaxunlearn.evaluate import Evaluation, Triggered, evaluate, predict
from jaxunlearn.metrics import Count
from tests.checker import unchecked

LABELS = np.array([0, 0, 1, 1, 2, 2])


def test_images_of_the_target_class_do_not_count() -> None:
    predictions = np.array([0, 0, 0, 1, 0, 1])
    assert metrics.accuracy(predictions, LABELS) == Count(3, 6)
    assert metrics.attack_success(predictions, LABELS, 0) == Count(2, 4)
    assert metrics.recovered_accuracy(predictions, LABELS, 0) == Count(1, 4)


def test_a_model_without_a_backdoor_has_no_attack_success() -> None:
    assert metrics.attack_success(LABELS, LABELS, 1).hits == 0


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((0.9, 0.9, 1.0, 0.0), 1.0),
        ((0.9, 0.9, 1.0, 1.0), 0.5),
        ((0.9, 0.8, 1.0, 0.5), 0.7),  # losing accuracy costs
        ((0.8, 0.9, 0.5, 1.0), 0.5),  # gaining accuracy or attack success neither pays nor costs
    ],
)
def test_defense_effectiveness(rates: Any, expected: float) -> None:
    assert metrics.defense_effectiveness(*rates) == pytest.approx(expected)


def test_nothing_counted_is_not_zero() -> None:
    assert np.isnan(Count(0, 0).rate)


def brightest(variables: Any, x: Any, *, train: bool) -> Any:
    del variables, train
    return x.mean((1, 2)), {}


@pytest.mark.parametrize("batch_size", [1, 4, 7, 10, 100])
def test_predictions_do_not_depend_on_the_batches(batch_size: int) -> None:
    images = np.random.default_rng(0).random((10, 3, 3, 4)).astype(np.float32)
    expected = images.mean((1, 2)).argmax(1)
    np.testing.assert_array_equal(predict(brightest, {}, images, batch_size=batch_size), expected)


def test_an_evaluation_goes_through_counts_and_back() -> None:
    images = np.eye(3, dtype=np.float32)[LABELS][:, None, None, :]
    whole = evaluate(brightest, {}, images, LABELS, trigger=lambda x: x.at[..., 0].add(2.0), target=0)
    assert whole == Evaluation(Count(6, 6), Count(4, 4), Count(0, 4))
    assert Evaluation.from_counts(whole.counts()) == whole
    clean = evaluate(brightest, {}, images, LABELS)
    assert clean.rates() == {"acc": 1.0, "asr": None, "ra": None}
    assert Evaluation.from_counts(clean.counts()) == clean


def test_a_trigger_needs_its_target() -> None:
    with pytest.raises(ValueError, match="belong together"):
        evaluate(brightest, {}, np.zeros((1, 2, 2, 3), np.float32), np.zeros(1, int), target=1)


def test_means_count_only_what_the_mask_keeps() -> None:
    values, mask = jnp.array([1.0, 2.0, 100.0]), jnp.array([True, True, False])
    assert float(losses.masked_mean(values, mask)) == 1.5
    assert float(losses.masked_mean(values, jnp.zeros(3, bool))) == 0.0


def test_means_of_many_values_in_half_precision_are_finite() -> None:
    many = jnp.full(70_000, 2.0, jnp.float16)
    mean = losses.masked_mean(many, jnp.ones(len(many), bool))
    assert (float(mean), mean.dtype) == (2.0, jnp.float16)


def test_labels_are_one_for_each_image() -> None:
    images, column = np.zeros((4, 2, 2, 3), np.float32), np.zeros((4, 1), int)
    triggered = Triggered(images, np.zeros(4, int), column)
    with pytest.raises(ValueError, match=r"labels has shape \(4, 1\); expected one integer for each"):
        evaluate(brightest, {}, images, np.zeros(4, int), triggered=triggered)


def test_classes_that_the_network_does_not_have_are_no_zero_rates() -> None:
    images = np.full((4, 2, 2, 3), 0.5, np.float32)
    labels = np.zeros(4, int)
    with pytest.raises(ValueError, match="target=3 is no class of the network, which has 0 to 2"):
        evaluate(brightest, {}, images, labels, trigger=lambda x: x, target=3)
    with pytest.raises(ValueError, match="labels run from 0 to 3 and the network has the classes 0 to 2"):
        evaluate(brightest, {}, images, np.arange(4))
    triggered = Triggered(images, labels, labels + 5)
    with pytest.raises(ValueError, match="labels run from 5 to 5"):
        evaluate(brightest, {}, images, labels, triggered=triggered)
    with pytest.raises(ValueError, match=r"trigger makes images of shape \(4, 1, 2, 3\)"):
        evaluate(brightest, {}, images, labels, trigger=lambda x: x[:, :1], target=1)


def test_only_pixels_are_judged() -> None:
    images = np.full((2, 2, 2, 3), 200, np.uint8)
    for wrong, message in ((images, "dtype uint8"), (images.astype(np.float32), "pixels from 200 to 200")):
        with pytest.raises(ValueError, match=message):
            unchecked(evaluate)(brightest, {}, wrong, np.zeros(2, int))


def test_labels_of_eight_bits_are_not_wrapped() -> None:
    logits = jnp.zeros((1, 300)).at[0, 259].set(20.0)  # 259 is 3 in eight bits
    given = losses.complementary_cross_entropy(logits, jnp.array([3], jnp.uint8))
    np.testing.assert_array_equal(given, losses.complementary_cross_entropy(logits, jnp.array([3])))
    assert float(given[0]) < 1e-6


def test_a_rating_of_what_was_not_counted_is_none() -> None:
    nan = float("nan")
    for rates in ((0.9, 0.9, nan, nan), (0.9, nan, 1.0, 0.0)):
        assert np.isnan(metrics.defense_effectiveness(*rates))
    assert metrics.defense_effectiveness(0.9, 0.7, 1.0, 0.2) == pytest.approx(0.8)
