"""Optimizers against PyTorch's own."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxunlearn import finetune
from jaxunlearn._optimizers import clipped, learning_rates, scale_by_torch_amsgrad
from tests.checker import unchecked


@pytest.mark.usefixtures("x64")
def test_amsgrad_takes_pytorchs_steps() -> None:
    rng = np.random.default_rng(0)
    start = rng.standard_normal(5)
    gradients = [rng.standard_normal(5) * scale for scale in (1.0, 5.0, 0.1, 0.01, 2.0, 0.3)]
    theirs = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.Adam([theirs], lr=0.1, amsgrad=True)
    ours, transformation = start, scale_by_torch_amsgrad()
    state = transformation.init(ours)
    for gradient in gradients:
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        updates, state = transformation.update(jax.numpy.asarray(gradient), state)
        ours = ours - 0.1 * updates
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_amsgrad_keeps_the_precision(dtype: str) -> None:
    gradient = jax.numpy.ones(3, dtype)
    transformation = scale_by_torch_amsgrad()
    updates, state = transformation.update(gradient, transformation.init(gradient))
    assert {leaf.dtype.name for leaf in (updates, state.mu, state.nu, state.nu_max)} == {dtype}
    np.testing.assert_allclose(updates.astype(float), 1, rtol=1e-2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_long_gradients_are_shortened_in_any_precision(dtype: str) -> None:
    gradient = {
        "w": jnp.full(1000, 30.0, dtype)
    }  # whose squares are more than the largest number of half precision
    short = clipped(gradient, 20.0)["w"]
    assert short.dtype == dtype
    assert float(jnp.linalg.norm(short.astype("float32"))) == pytest.approx(20, rel=1e-2)


@pytest.mark.parametrize(
    "settings", [{"crop_padding": 1.5}, {"label_smoothing": np.float32(1.5)}, {"rounds": np.uint8(30)}]
)
def test_numbers_that_cannot_be_used_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        unchecked(finetune.Config.__post_init__)(
            SimpleNamespace(**dataclasses.asdict(finetune.Config()) | settings)
        )


def test_half_precision_without_room_for_squares_is_refused() -> None:
    images, labels = jnp.zeros((20, 4, 4, 1), jnp.float16), jnp.arange(20) % 2
    apply_fn = lambda w, x, *, train: (x.mean((1, 2)) @ w, {})  # noqa: E731
    with pytest.raises(ValueError, match="float16, in which squares"):
        finetune.unlearn(
            apply_fn, jnp.zeros((1, 2), jnp.float16), images, labels, finetune.Config(), jax.random.key(0)
        )


def test_rates_of_any_number_of_rounds_fit() -> None:
    """More steps than a whole number of 32 bits counts."""
    for schedule in ("cosine", "onecycle"):
        rates = learning_rates(schedule, 1.0, jnp.asarray(3), 3_000_000_000, 4)
        assert np.all(np.isfinite(rates))
