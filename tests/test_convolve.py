"""Convolutions that are written in another way on CPU are the same convolutions, and fast inside loops."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench_loops import lax_convolve
from jaxunlearn.models import convolve

# Side, window, stride, border, input and output channels, groups.
CASES = [
    (1, 3, 1, 1, 3, 5, 1),
    (2, 3, 1, 1, 3, 5, 1),
    (3, 3, 2, 1, 3, 5, 1),
    (4, 3, 2, 1, 3, 5, 1),
    (2, 7, 2, 3, 3, 5, 1),
    (4, 4, 4, 0, 3, 5, 1),
    (5, 3, 1, 1, 3, 5, 1),
    (5, 3, 1, 1, 4, 4, 4),
    (6, 3, 2, 1, 4, 4, 4),
    (2, 7, 1, 3, 4, 4, 4),
    (1, 5, 1, 2, 4, 4, 4),
    (4, 3, 1, 1, 4, 6, 2),
    (2, 3, 1, 1, 4, 8, 4),
    (4, 1, 2, 0, 3, 5, 1),
    (1, 1, 1, 0, 1, 1, 1),
]


def drawn(case: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Images that are not square and a kernel."""
    side, window, _, _, inputs, outputs, groups = case
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (3, side, side + 1, inputs))
    return x, jax.random.normal(keys[1], (window, window, inputs // groups, outputs))


def close(found: Any, expected: Any) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_are_those_of_xlas_convolution(case: tuple[int, ...]) -> None:
    x, kernel = drawn(case)
    how = case[2], case[3], case[6]
    expected, pullback = jax.vjp(lambda x, k: lax_convolve(x, k, *how), x, kernel)
    found, ours = jax.vjp(lambda x, k: convolve(x, k, *how), x, kernel)
    close(found, expected)
    cotangent = jax.random.normal(jax.random.key(2), expected.shape)
    close(ours(cotangent), pullback(cotangent))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", [case for case in CASES if case[6] == 1])
def test_so_are_derivatives_of_the_gradient(case: tuple[int, ...]) -> None:
    """Forward and reverse over reverse: what Hessian-vector products and hypergradients are made of."""
    arrays = drawn(case)

    def gradient(fun: Callable[..., jax.Array]) -> Callable[..., Any]:
        return jax.grad(lambda x, k: jnp.sum(jnp.tanh(fun(x, k, *case[2:4]))), argnums=(0, 1))

    def second(fun: Callable[..., jax.Array]) -> Any:
        summed = jax.grad(lambda *both: sum(jnp.sum(jnp.sin(one)) for one in gradient(fun)(*both)), (0, 1))
        return summed(*arrays), jax.jvp(gradient(fun), arrays, arrays)

    close(jax.jit(second, static_argnums=0)(convolve), jax.jit(second, static_argnums=0)(lax_convolve))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (2, 1)])
def test_so_are_many_at_once(axes: tuple[int | None, int | None]) -> None:
    x, kernel = drawn((5, 3, 2, 1, 3, 5, 1))

    def stacked(one: jax.Array, axis: int | None) -> jax.Array:
        return one if axis is None else jnp.stack([one, jnp.cos(one)], axis)

    def gradients(fun: Callable[..., jax.Array]) -> Any:
        one = jax.value_and_grad(lambda x, k: jnp.sum(jnp.tanh(fun(x, k, 2, 1))), argnums=(0, 1))
        return jax.vmap(one, in_axes=axes)(stacked(x, axes[0]), stacked(kernel, axes[1]))

    close(gradients(convolve), gradients(lax_convolve))


def test_derivatives_keep_the_order_of_axes_that_is_fast_in_loops() -> None:
    """Nothing else tells, but for the time: no transpose may be a convolution with other axes."""
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))

    def orders(fun: Callable[..., jax.Array]) -> set[str]:
        gradient = jax.grad(lambda x, k: jnp.sum(jnp.tanh(fun(x, k, 1, 1))), argnums=(0, 1))
        text = jax.jit(gradient).lower(x, kernel).as_text()
        return set(re.findall(r"dim_numbers = (.+?), window", text))

    assert orders(convolve) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    assert len(orders(lax_convolve)) == 3


def test_the_other_way_is_taken_where_it_should() -> None:
    def convolutions(side: int, groups: int) -> int:
        x, kernel = jnp.ones((1, side, side, 4)), jnp.ones((3, 3, 4 // groups, 4))
        text = str(jax.make_jaxpr(lambda x, k: convolve(x, k, 1, 1, groups))(x, kernel))
        return text.count("conv_general_dilated[") + text.count("convolution_in_order[")

    assert [convolutions(*case) for case in ((8, 1), (2, 1), (1, 1), (8, 4), (8, 2))] == [1, 0, 0, 0, 1]
