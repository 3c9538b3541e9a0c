"""The inner problem of I-BAU: what perturbations do, and that padding does not count."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import _universal, ibau
from jaxunlearn.ibau import perturbations
from tests import toys

ascent_step, inner_loss, unlearning_hypergradient = (
    jax.jit(fun, static_argnums=0)
    for fun in (ibau.ascent_step, ibau.inner_loss, ibau.unlearning_hypergradient)
)

CONFIGS = {name: ibau.PRESETS[name] for name in ("reference", "default")}


def batch_of(count: int, padding: int = 0, fill: float = 0.0) -> ibau.Batch:
    images, labels = toys.images_and_labels(count)
    border = ((0, padding), (0, 0), (0, 0), (0, 0))
    return ibau.Batch(
        jnp.asarray(np.pad(images, border, constant_values=fill)),
        jnp.asarray(np.pad(labels, (0, padding), constant_values=int(fill))),
        jnp.arange(count + padding) < count,
    )


def some_delta(config: ibau.Config) -> Any:
    kinds = perturbations.kinds_of(config, toys.CLASSES)
    return 0.1 * jax.random.normal(jax.random.key(1), (kinds, *toys.SHAPE))


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_does_not_count_in_ascent(name: str) -> None:
    config = CONFIGS[name]
    start = perturbations.start(config, some_delta(config).shape, jnp.float32)
    results = []
    for fill in (0.0, 2.0):
        batch = batch_of(6, 2, fill)
        suspicion = jnp.full(len(start.delta), 1 / len(start.delta))
        step = ascent_step(
            toys.apply_fn, toys.variables(), start, batch, suspicion, jnp.inf, jax.random.key(2), config
        )
        results.append(step)
    jax.tree.map(np.testing.assert_array_equal, *results)


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_does_not_count_in_losses_and_hypergradients(name: str) -> None:
    config = dataclasses.replace(CONFIGS[name], solver_steps=3)
    delta, variables = some_delta(config), toys.variables()

    def run(padding: int) -> Any:
        batch = batch_of(6, padding, 1.0)
        kinds = jnp.arange(6 + padding) % len(delta)
        scale = jnp.where(batch.mask, jnp.pad(jnp.linspace(0.5, 1.5, 6), (0, padding)), 1.0)
        inner, outer = (batch, kinds), (batch, scale, kinds)
        loss, _ = inner_loss(toys.apply_fn, variables, delta, *inner, config)
        return loss, unlearning_hypergradient(toys.apply_fn, variables, delta, inner, outer, config)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), run(0), run(4))


def test_every_perturbation_stays_in_its_ball() -> None:
    config = dataclasses.replace(ibau.PRESETS["paper"], radius=0.5)
    ascent = perturbations.start(config, (1, *toys.SHAPE), jnp.float32)
    for _ in range(3):
        ascent, _ = ascent_step(
            toys.apply_fn,
            toys.variables(),
            ascent,
            batch_of(8),
            jnp.ones(1),
            jnp.asarray(0.5),
            jax.random.key(0),
            config,
        )
    assert 0.49 < float(jnp.linalg.norm(ascent.delta)) <= 0.5 + 1e-6


def test_a_growing_ball_grows_until_something_works() -> None:
    config = ibau.PRESETS["default"]
    ascent = perturbations.start(config, (toys.CLASSES + 1, *toys.SHAPE), jnp.float32)
    radii = [float(ascent.radius)]
    for step in range(80):
        ascent, _ = ascent_step(
            toys.apply_fn,
            toys.variables(),
            ascent,
            batch_of(20),
            jnp.full(4, 0.25),
            jnp.inf,
            jax.random.key(step),
            config,
        )
        radii.append(float(ascent.radius))
        if float(ascent.success.max()) >= config.enough:
            break
    assert float(ascent.success.max()) >= config.enough
    growth = np.array(radii[1:]) / np.array(radii[:-1])
    np.testing.assert_allclose(growth[:-1], 1.1, rtol=1e-5)  # every step but the last one found too little


def test_nothing_is_led_towards_its_own_class() -> None:
    answers = jnp.arange(300) % 3
    kinds = _universal.draw_kinds(jax.random.key(0), jnp.full(4, 0.25), answers)
    assert not np.any(np.asarray(kinds) == np.asarray(answers))
    assert set(np.asarray(kinds).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("count", [1, 3, 10, 99, 100, 200])
def test_descent_always_perturbs_at_least_one_image(count: int) -> None:
    from jaxunlearn.ibau import algorithm

    config = ibau.PRESETS["reference"]
    images = jnp.zeros((200, *toys.SHAPE))
    batch = ibau.Batch(images, jnp.zeros(200, jnp.int32), jnp.arange(200) < count)
    carried = algorithm._carry(jax.random.key(0), batch, jnp.ones((3, 1)), config)
    perturbed = np.asarray(carried.scale) > 0
    assert perturbed.sum() == max(1, count // 100)
    assert not perturbed[count:].any()


def test_padding_masks_do_not_change_the_rows_that_are_used() -> None:
    from jaxunlearn import _loop

    rows = _loop.batch_rows(10, 4, jax.random.key(0), least=5)
    assert rows.members.shape == (6, 4)  # two passes of three batches
    for half in (slice(0, 3), slice(3, 6)):
        used = np.asarray(rows.members[half])[np.asarray(rows.mask[half])]
        assert sorted(used.tolist()) == list(range(10))
