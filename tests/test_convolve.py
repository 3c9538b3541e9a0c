"""Convolutions that are written in another way on CPU are the same convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn.models import layers

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


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_are_those_of_xlas_convolution(case: tuple[int, ...]) -> None:
    side, window, stride, border, inputs, outputs, groups = case
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (3, side, side + 1, inputs))
    kernel = jax.random.normal(keys[1], (window, window, inputs // groups, outputs))

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((border, border), (border, border)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    expected, pullback = jax.vjp(plain, x, kernel)
    found, ours = jax.vjp(lambda x, k: layers.convolve(x, k, stride, border, groups), x, kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    cotangent = jax.random.normal(keys[2], expected.shape)
    for a, b in zip(ours(cotangent), pullback(cotangent), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_the_other_way_is_taken_where_it_should() -> None:
    def convolutions(side: int, groups: int) -> int:
        x, kernel = jnp.ones((1, side, side, 4)), jnp.ones((3, 3, 4 // groups, 4))
        return str(jax.make_jaxpr(lambda x, k: layers.convolve(x, k, 1, 1, groups))(x, kernel)).count(
            "conv_general_dilated["
        )

    assert [convolutions(*case) for case in ((8, 1), (2, 1), (1, 1), (8, 4), (8, 2))] == [1, 0, 0, 0, 1]
