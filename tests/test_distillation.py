"""Mixtures and what a model answers to them, and that I-BAU and SAU learn from the model that they were given."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import _universal, ibau, sau
from jaxunlearn._distillation import mixtures
from jaxunlearn._loop import Batch, Data, Execution
from jaxunlearn.ibau.algorithm import _distilled
from jaxunlearn.losses import mean_cross_entropy
from tests import toys

METHODS = {"ibau": ibau, "sau": sau}


def few(method: Any, **changes: Any) -> Any:
    """The default settings in a few steps."""
    return dataclasses.replace(method.PRESETS["default"], rounds=2, least_steps=2, **changes)


def begun(method: Any, config: Any, labels: Any = None) -> tuple[Any, Any, Data]:
    """A method with its state before the first round, and its data."""
    images, true = toys.images_and_labels()
    made = method.make_method(toys.apply_fn, Execution())
    data = Data(images, true if labels is None else labels).for_loop(Execution())
    return made, made.init(toys.variables(), data, config, jax.random.key(0)), data


def distance(first: Any, second: Any) -> float:
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return max(float(jnp.max(jnp.abs(one - other))) for one, other in pairs)


def test_mixtures_lie_between_two_images_and_carry_the_models_answers() -> None:
    images = jnp.eye(6)[:, :, None, None]  # each image is its own axis, so that shares can be read off
    weights, labels = jax.random.normal(jax.random.key(1), (6, 3)), jnp.arange(6) % 3

    def apply_fn(variables: Any, x: jax.Array, *, train: bool) -> Any:
        assert not train
        return x[:, :, 0, 0] @ variables, {}

    mixed, answers = mixtures(apply_fn, weights, images, labels, jax.random.key(2))
    shares = np.asarray(mixed[:, :, 0, 0])
    own = np.diag(shares)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    assert np.all(np.count_nonzero(shares, axis=1) <= 2)
    partners = shares - np.diag(own)
    np.testing.assert_array_equal(
        np.sort(partners.argmax(1)[own < 1]), np.arange(6)[own < 1]
    )  # each is one's partner
    assert own.min() < 0.5 < own.max()
    np.testing.assert_allclose(answers, jax.nn.softmax(jnp.asarray(shares) @ weights), rtol=1e-5)
    slope = jax.grad(lambda w: jnp.sum(mixtures(apply_fn, w, images, labels, jax.random.key(2))[1] ** 2))(
        weights
    )
    assert not np.any(slope)


def test_a_withheld_class_is_answered_where_an_image_is_of_it_alone() -> None:
    images, labels = jnp.eye(6)[:, :, None, None], jnp.arange(6) % 3
    logits = jax.random.normal(jax.random.key(1), (6, 3))

    def answers(logits: jax.Array, withheld: Any) -> tuple[np.ndarray, np.ndarray]:
        mixed, found = mixtures(
            lambda variables, x, *, train: (variables, {}),
            logits,
            images,
            labels,
            jax.random.key(2),
            withheld=withheld,
        )
        of_it = np.asarray(mixed[:, labels == 2, 0, 0]).any(axis=1) | np.asarray(labels == 2)
        return np.asarray(found), ~of_it

    given, last = np.asarray(jax.nn.softmax(logits)), jnp.array([False, False, True])
    np.testing.assert_array_equal(answers(logits, False)[0], given)
    found, other = answers(logits, last)
    assert 0 < other.sum() < 6
    np.testing.assert_array_equal(found[~other], given[~other])
    np.testing.assert_allclose(found[other, :2], jax.nn.softmax(logits[:, :2])[other], rtol=1e-6)
    assert not np.any(found[other, 2])
    everything, _ = answers(logits.at[:, 2].set(500.0), jnp.ones(3, bool))
    np.testing.assert_allclose(everything.sum(1), 1, rtol=1e-6)  # and not NaN


def test_suspects_are_those_that_are_suspected_nearly_as_much_as_the_first() -> None:
    found = _universal.suspects(jnp.array([0.2, 0.06, 0.04, 0.7]))
    assert found.tolist() == [True, True, False]
    assert _universal.suspects(jnp.ones(1)).tolist() == [False]


@pytest.mark.parametrize("name", METHODS)
def test_what_methods_learn_depends_on_what_is_withheld(name: str) -> None:
    images, labels = toys.images_and_labels()
    found = [
        METHODS[name].unlearn(
            toys.apply_fn, toys.variables(), images, labels, few(METHODS[name], **changes), jax.random.key(0)
        )[0]
        for changes in (
            {},
            {"withhold": False},
            {"withhold": True, "distillation": False},
            {"withhold": False, "distillation": False},
        )
    ]
    assert distance(found[0], found[1]) > 1e-5
    assert distance(found[2], found[3]) == 0


def test_cross_entropy_takes_probabilities() -> None:
    logits = jnp.array([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0], [9.0, 9.0, 9.0]])
    mask, labels = jnp.array([True, True, False]), jnp.array([2, 0, 1])
    np.testing.assert_allclose(
        mean_cross_entropy(logits, jax.nn.one_hot(labels, 3), mask), mean_cross_entropy(logits, labels, mask)
    )
    halves = jnp.full((3, 3), 0.5).at[:, 1].set(0.0)
    each = [mean_cross_entropy(logits, jnp.full(3, label), mask) for label in (0, 2)]
    np.testing.assert_allclose(mean_cross_entropy(logits, halves, mask), sum(each) / 2, rtol=1e-6)


def test_perturbed_images_keep_their_true_classes() -> None:
    images, labels = map(jnp.asarray, toys.images_and_labels(6))
    bare = jnp.array([True, False, True, True, False, True])
    mixed = mixtures(toys.apply_fn, toys.variables(), images, labels, jax.random.key(0))
    batch, (expected, answers) = _distilled(Batch(images, labels, jnp.ones(6, bool)), mixed, bare), mixed
    np.testing.assert_array_equal(batch.images, np.where(bare[:, None, None, None], expected, images))
    np.testing.assert_array_equal(batch.labels, np.where(bare[:, None], answers, jax.nn.one_hot(labels, 3)))
    assert np.any(np.asarray(expected) != images, axis=(1, 2, 3)).sum() >= 5


@pytest.mark.parametrize("name", METHODS)
def test_it_changes_what_is_learned_and_only_where_it_is_asked_for(name: str) -> None:
    method, found = METHODS[name], {}
    images, labels = toys.images_and_labels()
    for distillation in (True, False):
        config = few(method, distillation=distillation)
        found[distillation] = method.unlearn(
            toys.apply_fn, toys.variables(), images, labels, config, jax.random.key(0)
        )[0]
    assert distance(found[True], found[False]) > 1e-4
    assert method.PRESETS["default"].distillation
    assert not method.PRESETS["reference"].distillation


def test_ibau_learns_from_the_model_that_was_given_in_every_round() -> None:
    made, state, data = begun(ibau, few(ibau))
    given = state.params
    state, _ = made.step(state, data)
    assert distance(state.given, given) == 0 < distance(state.params, given)
    after = made.finish(made.step(state, data)[0])
    from_itself = made.finish(made.step(state._replace(given=state.params), data)[0])
    assert distance(after, from_itself) > 1e-6
    assert begun(ibau, few(ibau, distillation=False))[1].given is None


def test_the_clean_term_of_sau_does_not_look_at_labels() -> None:
    _, true = toys.images_and_labels()
    losses = {}
    for distillation in (True, False):
        config = dataclasses.replace(
            few(sau, distillation=distillation, withhold=False), rounds=1, least_steps=1
        )
        losses[distillation] = [
            float(made.step(state, data)[1].losses.clean)
            for made, state, data in (begun(sau, config, labels) for labels in (true, (true + 1) % 3))
        ]
    assert losses[True][0] == losses[True][1]
    assert abs(losses[False][0] - losses[False][1]) > 1e-3


def test_a_model_has_nothing_to_learn_from_its_own_answers() -> None:
    images, labels = map(jnp.asarray, toys.images_and_labels())
    mixed, answers = mixtures(toys.apply_fn, toys.variables(), images, labels, jax.random.key(0))

    def loss(variables: Any) -> jax.Array:
        logits, _ = toys.apply_fn(variables, mixed, train=False)
        return mean_cross_entropy(logits, answers, jnp.ones(len(mixed), bool))

    slopes = jax.tree.leaves(jax.grad(loss, allow_int=True)(toys.variables())["params"])
    assert max(float(jnp.max(jnp.abs(slope))) for slope in slopes) < 1e-6
