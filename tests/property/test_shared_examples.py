"""What holds for every search of SAU, and for the losses that it and the unlearning use."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxunlearn import losses, sau
from tests import toys

COUNT = 6
NORMS = {"linf": np.inf, "l2": 2, "l1": 1}
MODELS = (toys.variables(0), toys.variables(1))
search, examine, unlearning_loss = (
    jax.jit(fun, static_argnums=0) for fun in (sau.search, sau.examine, sau.unlearning_loss)
)


def a_batch(padding: int = 0, fill: float = 0.0) -> tuple[sau.Batch, Any]:
    """Images with labels, and the answers of the two models to them."""
    images, labels = toys.images_and_labels(COUNT)
    border = ((0, padding), (0, 0), (0, 0), (0, 0))
    images = jnp.clip(jnp.pad(images, border, constant_values=fill), 0, 1)
    batch = sau.Batch(images, jnp.pad(labels, (0, padding)), jnp.arange(COUNT + padding) < COUNT)
    answers = tuple(jnp.argmax(toys.apply_fn(v, images, train=False)[0], axis=1) for v in MODELS)
    return batch, answers


@given(
    norm=st.sampled_from(sorted(NORMS)),
    start=st.sampled_from(["max", "min", "zero", "random"]),
    radius=st.floats(1e-3, 10),
    step_size=st.floats(1e-3, 10),
    steps=st.integers(0, 3),
    clip_pixels=st.booleans(),
)
def test_perturbations_stay_in_their_ball_and_pixels_in_range(
    norm: str, start: str, radius: float, step_size: float, steps: int, clip_pixels: bool
) -> None:
    config = sau.Config(
        norm=norm,
        start=start,
        radius=radius,
        step_size=step_size,
        search_steps=steps,
        clip_pixels=clip_pixels,
    )
    batch, answers = a_batch()
    delta = np.asarray(search(toys.apply_fn, MODELS, batch, answers, config, jax.random.key(0)))
    lengths = np.linalg.norm(delta.reshape(COUNT, -1), NORMS[norm], axis=1)
    assert np.all(lengths <= radius * (1 + 1e-5) + 1e-6)
    if not clip_pixels and start in ("max", "min") and steps == 0:
        np.testing.assert_allclose(lengths, radius, rtol=1e-5)
    perturbed = batch.images + delta
    assert not clip_pixels or (perturbed.min() >= -1e-6 and perturbed.max() <= 1 + 1e-6)


def test_steps_as_long_as_the_radius_leave_three_values() -> None:
    batch, answers = a_batch()
    delta = np.asarray(search(toys.apply_fn, MODELS, batch, answers, sau.Config(), jax.random.key(0)))
    distances = np.abs(delta[..., None] - np.array([-0.2, 0.0, 0.2]))
    np.testing.assert_allclose(distances.min(axis=-1), 0, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_a_shared_adversarial_example_stays_as_it_is(norm: str) -> None:
    batch, _ = a_batch()
    config = sau.Config(norm=norm, start="zero", radius=1.0)
    found = jnp.argmax(toys.apply_fn(MODELS[0], batch.images, train=False)[0], axis=1)
    models, answers = (MODELS[0], MODELS[0]), ((found + 1) % toys.CLASSES,) * 2  # so that both have changed
    for one_too_few in (False, True):
        given = tuple(a.at[0].set(found[0]) if one_too_few else a for a in answers)
        delta = search(toys.apply_fn, models, batch, given, config, jax.random.key(0))
        moved = np.any(np.asarray(delta) != 0, axis=(1, 2, 3))
        assert moved.tolist() == [one_too_few] + [False] * (COUNT - 1)


def test_padding_does_not_count() -> None:
    def run(padding: int, fill: float) -> Any:
        batch, answers = a_batch(padding, fill)
        config, key = sau.Config(), jax.random.key(0)
        delta = search(toys.apply_fn, MODELS, batch, answers, config, key)
        examples = examine(toys.apply_fn, MODELS[1], batch._replace(images=batch.images + delta), answers[1])
        loss, (terms, *_) = unlearning_loss(toys.apply_fn, MODELS[0], batch, examples, config, key)
        return delta[:COUNT], examples.fooled[:COUNT], loss, terms

    for padding, fill in ((2, 0.0), (5, 1.0)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            run(0, 0.0),
            run(padding, fill),
        )


def test_a_search_finds_what_both_models_answer_alike() -> None:
    batch, (answers, _) = a_batch()
    nearby = jax.tree.map(lambda leaf: leaf * 1.05, MODELS[0]["params"])
    models = (MODELS[0], {**MODELS[0], "params": nearby})

    def shared(steps: int) -> float:
        config = sau.Config(search_steps=steps, start="zero", radius=2.0)
        delta = search(toys.apply_fn, models, batch, (answers, answers), config, jax.random.key(0))
        now = [jnp.argmax(toys.apply_fn(v, batch.images + delta, train=False)[0], axis=1) for v in models]
        return float(jnp.mean((now[0] != answers) & (now[1] != answers) & (now[0] == now[1])))

    assert shared(0) == 0
    assert shared(20) > 0.5


@given(confidence=st.floats(-300, 300), classes=st.integers(2, 5), clamped=st.booleans())
def test_complementary_loss_is_finite_with_a_finite_gradient(
    confidence: float, classes: int, clamped: bool
) -> None:
    logits = jnp.zeros((1, classes)).at[0, 0].set(confidence)
    clamps = {"offset": 1e-6, "enough": 0.999} if clamped else {}

    def loss_fn(logits: Any) -> Any:
        return losses.complementary_cross_entropy(logits, jnp.array([0]), **clamps)[0]

    loss, gradient = jax.value_and_grad(loss_fn)(logits)
    assert np.isfinite(loss) and loss >= -1e-6
    assert np.all(np.isfinite(gradient))
    probability = float(jax.nn.softmax(logits)[0, 0])
    if not clamped:
        np.testing.assert_allclose(gradient[0, 0], probability, atol=1e-5)
    elif probability < 1e-3 - 1e-6:
        assert not np.any(gradient)


@pytest.mark.usefixtures("x64")
def test_complementary_loss_is_log_of_the_rest_and_its_gradient_that_of_the_log_times_the_odds() -> None:
    logits, labels = jax.random.normal(jax.random.key(0), (5, 4)), jnp.array([0, 1, 2, 3, 0])
    p = jax.nn.softmax(logits)[jnp.arange(5), labels]
    np.testing.assert_allclose(
        losses.complementary_cross_entropy(logits, labels), -jnp.log(1 - p), rtol=1e-12
    )

    def summed(fun: Any) -> Any:
        return jax.grad(lambda z: jnp.sum(fun(z)))(logits)

    log_p = summed(lambda z: jax.nn.log_softmax(z)[jnp.arange(5), labels])
    found = summed(lambda z: losses.complementary_cross_entropy(z, labels))
    np.testing.assert_allclose(found, (p / (1 - p))[:, None] * log_p, rtol=1e-9, atol=1e-12)


@given(st.lists(st.floats(-200, 200), min_size=6, max_size=6), st.sampled_from([0.0, 1e-8]))
def test_jensen_shannon_divergence(values: list[float], floor: float) -> None:
    p, q = jnp.asarray(values).reshape(2, 1, 3)
    found, gradient = jax.value_and_grad(lambda z: losses.jensen_shannon(z, q, floor=floor)[0])(p)
    assert -1e-6 <= found <= np.log(2) + 1e-6
    assert np.all(np.isfinite(gradient))
    np.testing.assert_allclose(found, losses.jensen_shannon(q, p, floor=floor)[0], atol=1e-6)
    assert losses.jensen_shannon(p, p, floor=floor)[0] < 1e-6
