"""The forward pass of training: who gets a key for dropout, and whose statistics move."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn._training import training_forward
from jaxunlearn.models import small_vgg

SPEC = small_vgg(3, (8, 8, 1), (4, 4, 4))
IMAGES = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))


class Wrapped:
    """Passes every keyword on."""

    def __call__(self, variables: Any, images: Any, *, train: bool, **options: Any) -> Any:
        return SPEC.apply(variables, images, train=train, **options)


@pytest.mark.parametrize("apply_fn", [SPEC.apply, Wrapped()])
def test_dropout_is_drawn_with_the_key(apply_fn: Any) -> None:
    variables = SPEC.init(jax.random.key(1))
    logits = [training_forward(apply_fn, variables, IMAGES, jax.random.key(seed))[0] for seed in (2, 2, 3)]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert not np.allclose(logits[0], logits[2])


def test_statistics_move_where_the_network_has_them() -> None:
    variables = SPEC.init(jax.random.key(1))
    _, moved = training_forward(SPEC.apply, variables, IMAGES, jax.random.key(2))
    assert jax.tree.structure(moved) == jax.tree.structure(variables)
    assert moved["params"] is variables["params"]
    for old, new in zip(
        jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(moved["batch_stats"]), strict=True
    ):
        assert not np.array_equal(old, new)


def test_a_network_without_dropout_and_statistics_is_applied_as_it_is() -> None:
    variables = {"w": jnp.eye(1)}
    logits, moved = training_forward(
        lambda variables, x, *, train: (x.mean((1, 2)) @ variables["w"] + train, {}),
        variables,
        IMAGES,
        jax.random.key(0),
    )
    np.testing.assert_allclose(logits, IMAGES.mean((1, 2)) + 1, rtol=1e-6)
    assert moved is variables
