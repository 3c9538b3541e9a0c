"""The choice of neurons: scores, outliers, order, re-initialisation, and where the last layer is."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import InputError, ulrl
from jaxunlearn.models import small_vgg
from jaxunlearn.models.vgg import VGG
from jaxunlearn.models.vit import VisionTransformer


def outliers(*scores: float) -> ulrl.Outliers:
    return ulrl.mad_outliers(jnp.asarray(scores, jnp.float32), 3.5)


def test_z_scores_are_those_of_the_formula() -> None:
    scores = np.array([1.0, 2.0, 4.0, 7.0, 11.0, 60.0], np.float32)
    median = 4.0  # the lower of the two in the middle
    mad = np.sort(np.abs(scores - median))[2]
    found = ulrl.mad_outliers(jnp.asarray(scores), 3.5)
    np.testing.assert_allclose(found.z, (scores - median) / (1.4826 * mad), rtol=1e-6)
    assert found.outlying.tolist() == [False, False, False, False, False, True]
    assert not found.degenerate


def test_what_moved_little_is_no_outlier() -> None:
    found = outliers(50.0, 51.0, 52.0, 53.0, 0.0)
    assert found.z[4] < -3.5
    assert not found.outlying.any()


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_more_than_half_alike_leaves_the_mean_deviation(noise: float) -> None:
    scores = [1.0, 1.0 + noise, 1.0, 1.0 - noise, 1.0, 1.0, 1.0, 9.0]
    found = outliers(*scores)
    assert found.degenerate
    np.testing.assert_allclose(found.z[7], 8 / 1.2533, rtol=1e-4)
    assert found.outlying.tolist() == [False] * 7 + [True]


@pytest.mark.parametrize("scores", [(3.0,) * 6, (0.0,) * 6, (5.0,), (0.1 + 0.2, 0.3, 0.3)])
def test_all_alike_gives_no_outlier(scores: tuple[float, ...]) -> None:
    found = outliers(*scores)
    assert found.degenerate
    assert found.z.tolist() == [0.0] * len(scores)
    assert not found.outlying.any()


def test_two_classes_never_stand_out() -> None:
    assert not outliers(1.0, 1e6).outlying.any()


@pytest.mark.parametrize(
    ("order", "most", "expected"),
    [("score", 2, [3, 5]), ("index", 2, [1, 3]), ("score", 0, []), ("score", 9, [1, 3, 5])],
)
def test_the_cut_goes_by_score_or_by_index(order: str, most: int, expected: list[int]) -> None:
    scores = jnp.array([0.0, 20.0, 1.0, 40.0, 2.0, 30.0, 1.5, 0.5])
    outlying = ulrl.mad_outliers(scores, 3.5).outlying
    assert np.flatnonzero(ulrl.suspicious(scores, outlying, most, order)).tolist() == expected


def zeros(module: Any, image_shape: tuple[int, int, int]) -> Any:
    """Variables of a network, without the work of drawing them."""
    images = jnp.zeros((1, *image_shape))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


@pytest.mark.parametrize(
    ("variables", "head", "expected"),
    [
        (zeros(small_vgg(5).module, (32, 32, 3)), "classifier", "params/classifier/kernel"),
        (
            zeros(VGG(5, ((4,),) * 5, batch_norm=True, hidden=(8, 8)), (32, 32, 3)),
            "classifier.6",
            "params/classifier.6/kernel",
        ),
        (
            zeros(VisionTransformer(5, 8, 4, width=8, layers=1, heads=2, hidden=8), (8, 8, 3)),
            "heads.head",
            "params/heads.head/kernel",
        ),
        ({"params": {"net": {"fc": {"kernel": jnp.ones((2, 5))}}}}, "net/fc", "params/net/fc/kernel"),
        ({"w": jnp.ones((2, 5))}, "w", "w"),
    ],
)
def test_the_head_is_found_by_its_name(variables: Any, head: str, expected: str) -> None:
    assert ulrl.head_kernel(variables, head) == expected
    assert list(ulrl.layer_kernels(variables, head, "head")) == [expected]
    every = ulrl.layer_kernels(variables, head, "all")
    assert every[expected].shape[-1] == 5
    assert all(name == expected or name.endswith("/kernel") for name in every)


@pytest.mark.parametrize("head", ["classifier.9", "features.0", "classifier.6/bias", ""])
def test_a_wrong_head_is_refused_with_what_there_is(head: str) -> None:
    variables = {
        "params": {
            "features.0": {"kernel": jnp.ones((3, 3, 3, 4))},
            "classifier.6": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)},
        }
    }
    with pytest.raises(
        InputError, match=r"names no linear layer; this network has classifier\.6\."
    ) as caught:
        ulrl.head_kernel(variables, head)
    assert repr(head) in str(caught.value)


def test_reinitialisation_draws_suspicious_neurons_and_keeps_the_rest() -> None:
    variables = small_vgg(50, widths=(4, 4, 8)).init(jax.random.key(0))
    variables["params"]["classifier"]["bias"] += 1
    name, conv = "params/classifier/kernel", "params/features.19/kernel"
    suspects = {name: jnp.arange(50) < 40, conv: jnp.arange(8) == 2}
    new = ulrl.reinitialise(variables, suspects, jax.random.key(1))
    old_kernel, kernel = (v["params"]["classifier"]["kernel"] for v in (variables, new))
    bound = (2 / 128) ** 0.5
    np.testing.assert_array_equal(kernel[:, 40:], old_kernel[:, 40:])
    assert 0.99 * bound < jnp.max(jnp.abs(kernel[:, :40])) <= bound
    np.testing.assert_allclose(jnp.var(kernel[:, :40]), bound**2 / 3, rtol=0.05)
    assert new["params"]["classifier"]["bias"].tolist() == [0.0] * 40 + [1.0] * 10
    moved = jnp.any(
        new["params"]["features.19"]["kernel"] != variables["params"]["features.19"]["kernel"], (0, 1, 2)
    )
    assert moved.tolist() == [index == 2 for index in range(8)]
    np.testing.assert_array_equal(
        new["params"]["features.16"]["kernel"], variables["params"]["features.16"]["kernel"]
    )


def test_the_bias_beside_a_matrix_of_any_name_goes_to_zero() -> None:
    params = {"fc": {"weight": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
    new = ulrl.reinitialise(params, {"fc/weight": jnp.array([False, True, False])}, jax.random.key(0))
    assert new["fc"]["bias"].tolist() == [1.0, 0.0, 1.0]


def test_the_penalty_sees_suspicious_neurons_only() -> None:
    rng = np.random.default_rng(0)
    kernel, original = jnp.asarray(rng.standard_normal((2, 6, 4)))
    mask = jnp.array([True, False, False, True])
    expected = sum(
        kernel[:, c] @ original[:, c] / np.linalg.norm(kernel[:, c]) / np.linalg.norm(original[:, c])
        for c in (0, 3)
    )
    found = ulrl.cosine_penalty({"w": kernel}, {"w": original}, {"w": mask})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_penalty_has_a_finite_gradient_at_zero_weights() -> None:
    zero, mask = jnp.zeros((4, 2)), jnp.array([True, False])
    gradient = jax.grad(lambda kernel: ulrl.cosine_penalty({"w": kernel}, {"w": zero + 1}, {"w": mask}))(zero)
    assert jnp.isfinite(gradient).all()


def test_only_what_is_trained_is_looked_at() -> None:
    layers = {"conv": {"kernel": jnp.ones((3, 3, 1, 8))}, "fc": {"kernel": jnp.ones((8, 2))}}
    variables = {"params": layers, "ema": layers}
    assert list(ulrl.layer_kernels(variables, "fc", "all")) == ["params/conv/kernel", "params/fc/kernel"]
