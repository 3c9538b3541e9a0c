"""Work that is left out, and programs that are slow inside loops."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench_loops import lax_convolve
from jaxunlearn import _loop, sau
from jaxunlearn._runtime import slow_in_loops
from jaxunlearn.models import convolve
from jaxunlearn.sau.perturbations import search
from tests import toys

NEEDED = [[], [0], [12], [0, 5, 12], list(range(13))]


def flags(members: list[int]) -> jax.Array:
    return jnp.zeros(13, bool).at[jnp.array(members, int)].set(True)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loop, "_CHUNK", 4)


@pytest.mark.parametrize("members", NEEDED)
def test_what_is_needed_is_computed_and_the_rest_is_zero(members: list[int]) -> None:
    parts = {"a": jnp.arange(1.0, 14), "b": jnp.ones((13, 2, 3), int)}
    needed = flags(members)

    def fun(some: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return some["a"] ** 2, some["b"] > 0

    def whole(needed: jax.Array) -> Any:
        return _loop.where_needed(fun, needed, parts)

    for found in (
        whole(needed),
        jax.jit(whole)(needed),
        jax.tree.map(lambda x: x[0], jax.vmap(whole)(needed[None])),
    ):
        np.testing.assert_array_equal(found[0], jnp.where(needed, parts["a"] ** 2, 0))
        np.testing.assert_array_equal(found[1], jnp.broadcast_to(needed[:, None, None], (13, 2, 3)))
        assert found[1].dtype == bool


@pytest.mark.parametrize(("members", "chunks"), list(zip(NEEDED, [0, 1, 1, 1, 4], strict=True)))
def test_nothing_else_is_computed(members: list[int], chunks: int) -> None:
    seen = []

    def fun(part: jax.Array) -> jax.Array:
        jax.debug.callback(lambda some: seen.append(len(some)), part)
        return part

    jax.block_until_ready(
        jax.jit(lambda needed: _loop.where_needed(fun, needed, jnp.ones(13)))(flags(members))
    )
    jax.effects_barrier()
    assert seen == [4] * chunks


def network(convolution: Callable[..., jax.Array]) -> Callable[..., Any]:
    def apply_fn(kernel: jax.Array, images: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, Any]]:
        return jnp.tanh(convolution(images, kernel, 1, 1)).sum((1, 2)), {}

    return apply_fn


KERNEL = jax.random.normal(jax.random.key(0), (3, 3, 1, toys.CLASSES))


def test_only_derivatives_of_xlas_own_convolution_are_slow_in_loops() -> None:
    images = jnp.ones((2, 6, 6, 1))

    def total(convolution: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda kernel: network(convolution)(kernel, images, train=False)[0].sum()

    assert not slow_in_loops(total(lax_convolve), KERNEL)
    assert slow_in_loops(jax.grad(total(lax_convolve)), KERNEL)
    assert slow_in_loops(jax.jit(jax.grad(total(lax_convolve))), KERNEL)
    assert slow_in_loops(lambda k: jax.lax.map(jax.grad(total(lax_convolve)), k[None]), KERNEL)
    assert not slow_in_loops(jax.grad(total(convolve)), KERNEL)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_search_finds_the_same_whether_it_leaves_images_out_or_not(norm: str) -> None:
    """A network with XLA's convolution gets neither loops nor conditions on CPU."""
    images, labels = toys.images_and_labels(13)
    batch = sau.Batch(jnp.asarray(images), jnp.asarray(labels), jnp.arange(13) != 3)
    config = sau.Config(norm=norm, radius=0.2, step_size=0.05, start="zero", search_steps=6)
    models = (KERNEL + 0.1, KERNEL)

    def found(convolution: Callable[..., jax.Array]) -> jax.Array:
        apply_fn = network(convolution)
        answers = tuple(
            jnp.argmax(apply_fn(kernel, batch.images, train=False)[0], axis=1) for kernel in models
        )
        searched = jax.jit(lambda *arrays: search(apply_fn, *arrays, config, jax.random.key(0)))
        return searched(models, batch, answers)

    skipping, whole = found(convolve), found(lax_convolve)
    np.testing.assert_allclose(skipping, whole, atol=1e-6)
    moved = jnp.any(whole != 0, axis=(1, 2, 3))
    assert not moved[3]  # padding
    assert 0 < int(moved.sum()) < 13


def test_sums_over_pieces_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loop, "_PIECE", 5)
    seen = []

    def fun(part: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        seen.append(tuple(len(leaf) for leaf in part))
        return {"both": part[0].sum() + part[1].sum(), "rows": (part[1] ** 2).sum(0)}

    parts = (jnp.arange(13.0), jnp.arange(8.0).reshape(4, 2))
    expected, found = fun(parts), jax.jit(lambda parts: _loop.summed(fun, parts, 17))(parts)
    np.testing.assert_allclose(found["both"], expected["both"])
    np.testing.assert_allclose(found["rows"], expected["rows"])
    assert seen[-1] == (4, 1)  # of four pieces each
    assert _loop.summed(len, parts[0], 5) == 13  # few images are one piece


def test_a_step_of_sau_is_the_same_whether_its_gradient_is_added_up_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, labels = toys.images_and_labels(13)
    data = sau.Data(images, labels)
    config = sau.Config(
        batch_size=10, rounds=1, learning_rate=0.01, radius=2.0, step_size=1.0, start="random"
    )

    def one_round(piece: int) -> Any:
        monkeypatch.setattr(_loop, "_PIECE", piece)
        sau.algorithm._passes.cache_clear()
        method = sau.make_method(toys.apply_fn, sau.Execution())
        state = method.init(toys.variables(), data, config, jax.random.key(1))
        other = method.init(toys.variables(1), data, config, jax.random.key(1))
        return method.step(state._replace(params=other.params), data)

    added_up, whole = one_round(3), one_round(100)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6),
        (added_up[0].params, added_up[1]),
        (whole[0].params, whole[1]),
    )
    stats = whole[1]
    assert float(stats.unlearned) > 0
    assert float(stats.fooled) > 0


def test_statistics_that_are_not_finite_end_a_run_as_variables_do() -> None:
    """DAU says only there that its features overflowed."""
    method = _loop.Method(
        lambda variables, *_: variables,
        lambda state, data: (state + 1, {"kept": jnp.nan}),
        lambda state: state,
    )
    with pytest.raises(_loop.NonFiniteError, match=r"Round 1 gave .* in statistics/kept") as raised:
        list(_loop.rounds(method, jnp.zeros(2), _loop.Data(*toys.images_and_labels()), 1, 2))
    np.testing.assert_array_equal(raised.value.last_good, jnp.zeros(2))
