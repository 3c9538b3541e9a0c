"""What methods begin with, and the forward pass of training: who gets a key for dropout, whose statistics move."""

import dataclasses
from collections import OrderedDict
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn import dau, finetune, ibau, ulrl
from jaxunlearn._check import InputError, check_run
from jaxunlearn._training import begin, forward_of_halves, forward_with_statistics, training_forward
from jaxunlearn._tree import combine, partition, trainable_mask
from jaxunlearn.models import named, small_vgg
from tests import toys

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


@pytest.mark.parametrize("method", [dau, finetune, ibau, ulrl])
def test_crops_that_may_miss_an_image_are_refused(method: Any) -> None:
    images, labels = toys.images_and_labels()
    side = images.shape[1]
    config = dataclasses.replace(method.Config(), crop_padding=side)
    head = {"head": "head"} if method in (dau, ulrl) else {}
    with pytest.raises(InputError, match=f"crop_padding={side} is not less than a side of the images"):
        method.unlearn(toys.apply_fn, toys.variables(), images, labels, config, jax.random.key(0), **head)


class Normalised(nn.Module):
    """Two layers normalised by Flax's own batch normalisation, whose momentum is the share of the old statistics."""

    momentum: float

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = images.reshape(len(images), -1)
        for width in (5, 3):
            x = nn.BatchNorm(not train, momentum=self.momentum)(nn.Dense(width)(x))
            x = nn.elu(x)
        return x


def applied(momentum: float) -> Any:
    def apply_fn(variables: Any, images: jax.Array, *, train: bool) -> Any:
        answer, moved = Normalised(momentum).apply(variables, images, train=train, mutable=["batch_stats"])
        return answer, moved

    return apply_fn


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("momentum", [0.99, 0.5, 0.0])
def test_a_batchs_own_statistics_are_found_whatever_the_momentum(momentum: float) -> None:
    """Running statistics that forget at once are those of the batch; so is their gradient."""
    images = jax.random.uniform(jax.random.key(3), (6, 4, 4, 1), jnp.float64)
    variables = Normalised(0.0).init(jax.random.key(0), images, train=True)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) + 0.3, variables)
    params, rest = partition(variables, trainable_mask(variables))

    def own(params: Any) -> Any:
        return forward_with_statistics(applied(momentum), params, rest, images, jax.random.key(1))[2]

    def at_once(params: Any) -> Any:
        return forward_of_halves(applied(0.0), params, rest, images, jax.random.key(1))[1]

    def answer(statistics: Any) -> Any:
        return lambda params: jnp.sum(
            applied(0.0)(combine(params, statistics(params)), 1 - images, train=False)[0] ** 3
        )

    for found, expected in (
        (own(params), at_once(params)),
        (jax.grad(answer(own))(params), jax.grad(answer(at_once))(params)),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, expected)


@pytest.mark.parametrize("running", [1.0, 42.03, 159.0])
def test_no_variance_is_negative(running: float) -> None:
    """A channel that is the same everywhere has none, whatever single precision makes of a large running one."""
    norm = nn.BatchNorm(use_running_average=False, momentum=0.9, use_bias=False, use_scale=False)
    images = jnp.concatenate([IMAGES, jnp.full_like(IMAGES, 0.3)], axis=-1)

    def apply_fn(variables: Any, images: jax.Array, *, train: bool) -> Any:
        return norm.apply(variables, images, mutable=["batch_stats"])

    @jax.jit
    def variances(running: jax.Array) -> jax.Array:
        statistics = {"mean": jnp.zeros(2), "var": jnp.full(2, running)}
        rest = {"params": {"w": None}, "batch_stats": statistics}
        params = {"params": {"w": jnp.ones(())}, "batch_stats": {"mean": None, "var": None}}
        _, _, own = forward_with_statistics(apply_fn, params, rest, images, jax.random.key(0))
        return own["batch_stats"]["var"]

    found = np.array([variances(running + more) for more in np.linspace(0, 1, 50)])
    np.testing.assert_allclose(found[:, 0], IMAGES.var(), rtol=1e-2)
    assert np.all(found[:, 1] >= 0)
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-3)


def test_statistics_that_do_not_move_are_their_own() -> None:
    def frozen(variables: Any, images: jax.Array, *, train: bool) -> Any:
        return images.mean((1, 2)) * variables["params"]["w"], {"batch_stats": variables["batch_stats"]}

    variables = {
        "params": {"w": jnp.ones(1)},
        "batch_stats": {"mean": jnp.full(2, 0.7), "count": jnp.array(3)},
    }
    params, rest = partition(variables, trainable_mask(variables))
    _, moved, own = forward_with_statistics(frozen, params, rest, IMAGES, jax.random.key(0))
    for found in (moved, own):
        assert found["batch_stats"]["mean"].tolist() == variables["batch_stats"]["mean"].tolist()
        assert int(found["batch_stats"]["count"]) == 3


def test_a_network_without_statistics_has_none_of_its_own() -> None:
    params, rest = {"params": {"w": jnp.ones(1)}}, {"params": {"w": None}}
    logits, _, own = forward_with_statistics(
        lambda variables, x, *, train: (x.mean((1, 2)) * variables["params"]["w"], {}),
        params, rest, IMAGES, jax.random.key(0),
    )  # fmt: skip
    np.testing.assert_allclose(logits, IMAGES.mean((1, 2)), rtol=1e-6)
    assert own == rest


def linear(variables: Any, images: Any, *, train: bool) -> Any:
    return images.mean((1, 2)) @ variables["params"]["w"], {}


PLAIN = {"params": {"w": jnp.ones((1, 3))}}
LABELS = np.arange(4) % 3


@pytest.mark.parametrize(
    ("apply_fn", "message"),
    [
        (lambda v, x, *, train: linear(v, x, train=train)[0], "returns only an array and has to return"),
        (lambda v, x, *, train: (*linear(v, x, train=train), 0), "returns 3 things and has to return"),
        (lambda v, x, *, train: (x, {}), r"logits of shape \(1, 8, 8, 1\) for one image"),
    ],
)
def test_a_network_has_to_return_logits_and_a_mapping(apply_fn: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        begin(apply_fn, PLAIN, IMAGES, LABELS)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (OrderedDict(PLAIN), "variables is a OrderedDict and has to be a dict"),
        ({"params": {"w": jnp.ones((1, 3), jnp.bfloat16)}}, "params/w has the dtype bfloat16 and the images"),
    ],
)
def test_variables_are_dicts_of_the_images_precision(variables: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        begin(linear, variables, IMAGES, LABELS)


@pytest.mark.parametrize("scale", [255.0, float("nan"), -1.0])
def test_pixels_are_in_their_range(scale: float) -> None:
    with pytest.raises(ValueError, match=r"images has pixels .* expected .*\[0, 1\]"):
        begin(linear, PLAIN, IMAGES * scale, LABELS)


def test_double_precision_of_numpy_is_what_jax_makes_of_it() -> None:
    begun = begin(linear, PLAIN, np.asarray(IMAGES, np.float64), LABELS)
    assert begun.dtype == jnp.float32
    assert begun.classes == 3


def test_variables_are_finite_arrays() -> None:
    with pytest.raises(InputError, match=r"params/act of the variables is a .*function"):
        begin(linear, {"params": {"w": jnp.ones((1, 3)), "act": lambda x: x}}, IMAGES, LABELS)
    with pytest.raises(InputError, match="params/w of the variables holds NaN"):
        begin(linear, {"params": {"w": jnp.full((1, 3), jnp.nan)}}, IMAGES, LABELS)


@pytest.mark.parametrize("key", [0, None, jax.random.split(jax.random.key(0), 2)], ids=["0", "None", "two"])
def test_a_key_is_one_key(key: Any) -> None:
    with pytest.raises(ValueError, match="is no random key"):
        check_run(finetune.Config(), finetune.Config, key)
    check_run(finetune.Config(), finetune.Config, jax.random.PRNGKey(0))


@pytest.mark.parametrize("config", ["default", ibau.Config()], ids=["a name", "another method's"])
def test_a_config_is_the_methods_own(config: Any) -> None:
    with pytest.raises(ValueError, match=r"expected one of jaxunlearn\.finetune"):
        check_run(config, finetune.Config, jax.random.key(0))


def test_equal_specs_give_equal_networks() -> None:
    first, second = (named("small_vgg_half", 10, (8, 8, 1)) for _ in range(2))
    assert first.apply == second.apply
    assert hash(first.apply) == hash(second.apply)
    assert first.apply != named("small_vgg_half", 9, (8, 8, 1)).apply
