"""SAU's perturbations that images share: what they are, and that padding does not count."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import _universal, sau
from jaxunlearn.sau import algorithm
from tests import toys

DEFAULT = sau.PRESETS["default"]
MODELS = (toys.variables(0), toys.variables(1))
climb = jax.jit(sau.climb, static_argnums=0)


def batch_of(count: int, padding: int = 0, fill: float = 0.0) -> sau.Batch:
    images, labels = toys.images_and_labels(count)
    border = ((0, padding), (0, 0), (0, 0), (0, 0))
    return sau.Batch(
        jnp.asarray(np.pad(images, border, constant_values=fill)),
        jnp.asarray(np.pad(labels, (0, padding))),
        jnp.arange(count + padding) < count,
    )


def climbed(batch: sau.Batch, steps: int, config: sau.Config = DEFAULT, models: Any = MODELS) -> Any:
    answers = jnp.argmax(toys.apply_fn(MODELS[1], batch.images, train=False)[0], axis=1)
    ascent = _universal.start((toys.CLASSES + 1, *toys.SHAPE), jnp.float32)
    for step in range(steps):
        key = jax.random.key(step)
        ascent = climb(toys.apply_fn, models, ascent, batch, answers, config, key)
    return ascent


def test_padding_does_not_count_in_a_step_of_the_search() -> None:
    jax.tree.map(
        np.testing.assert_array_equal, climbed(batch_of(6, 2, 0.0), 3), climbed(batch_of(6, 2, 2.0), 3)
    )


def test_shared_perturbations_fool_both_models() -> None:
    # Random networks: only perturbations beyond the range of pixels move them.
    config, batch = dataclasses.replace(DEFAULT, clip_pixels=False, radius=100.0), batch_of(24)
    ascent = climbed(batch, 120, config)
    assert float(ascent.success.max()) >= config.enough
    kind = int(jnp.argmax(_universal.suspect(ascent, DEFAULT.focus)[:-1]))
    for variables, least in zip(MODELS, (0.6, 0.9), strict=True):
        clean, perturbed = (
            np.asarray(jnp.argmax(toys.apply_fn(variables, images, train=False)[0], axis=1))
            for images in (batch.images, batch.images + ascent.delta[kind])
        )
        assert not np.any(clean == kind)
        assert np.mean(perturbed == kind) > least


@pytest.mark.parametrize("radius", [0.2, 1.0])
def test_shared_perturbations_stay_in_their_ball(radius: float) -> None:
    ascent = climbed(batch_of(8), 60, dataclasses.replace(DEFAULT, radius=radius, enough=2.0))
    lengths = jnp.sqrt(jnp.sum(ascent.delta**2, axis=(1, 2, 3)))
    assert 0.9 * radius < float(lengths.max()) <= radius * (1 + 1e-5)
    assert float(ascent.radius) == pytest.approx(radius)


@pytest.mark.parametrize(
    ("count", "padding", "share", "expected"), [(10, 6, 0.25, 4), (3, 5, 0.5, 4), (8, 0, 0.01, 1)]
)
def test_a_part_is_random_and_takes_padding_last(
    count: int, padding: int, share: float, expected: int
) -> None:
    config = dataclasses.replace(DEFAULT, perturbed_share=share)
    batch = batch_of(count, padding)
    parts = [algorithm._part(batch, batch.labels, config, jax.random.key(seed))[0] for seed in range(3)]
    for part in parts:
        assert len(part.labels) == expected
        assert int(part.mask.sum()) == min(count, expected)
    assert expected == len(batch.labels) or any(
        not np.array_equal(parts[0].images, part.images) for part in parts[1:]
    )


def test_the_first_look_comes_before_the_first_round_only() -> None:
    config = dataclasses.replace(
        DEFAULT, rounds=2, batch_size=8, least_steps=1, search_steps=0, first_steps=4
    )
    data = sau.Data(*toys.images_and_labels())
    method = sau.make_method(toys.apply_fn, sau.Execution())
    state = method.init(toys.variables(), data, config, jax.random.key(0))
    assert not np.any(state.ascent.delta)
    first, _ = method.step(state, data)
    second, _ = method.step(first, data)
    assert np.any(first.ascent.delta)
    jax.tree.map(np.testing.assert_array_equal, first.ascent, second.ascent)
