"""Equality with arrays that the official code of SAU computed in float64; the quick tests take a part of them."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from converters import convert, torch_io
from experiments import torch_ibau, torch_sau
from jaxunlearn import sau
from jaxunlearn.data import load
from jaxunlearn.sau import algorithm
from tests.quick import all_slow_but

DATA = {
    "sau_cifar10_badnets_8_02": "cifar10-lossless-subset/train.parquet",
    "sau_gtsrb_gtsrbbadnets_8_02": "gtsrb/test.parquet",
}
REFERENCE = sau.PRESETS["reference"]
SEARCHES = {
    "perturbation": REFERENCE,
    "perturbation_1step_lr005": dataclasses.replace(REFERENCE, search_steps=1, step_size=0.05),
}


class Golden(NamedTuple):
    arrays: Any
    spec: Any
    models: Any
    batch: sau.Batch
    answers: Any


@pytest.fixture(scope="module", params=all_slow_but("sau_cifar10_badnets_8_02", DATA))
def golden(request: pytest.FixtureRequest, shared: Path) -> Iterator[Golden]:
    with jax.enable_x64(True):
        archive = np.load(shared / "golden" / f"{request.param}.npz", allow_pickle=False)
        arrays = {key: archive[key] for key in archive.files}
        name = request.param.split("_", 2)[2]
        states = (
            {key.removeprefix("model/"): array for key, array in arrays.items() if key.startswith("model/")},
            torch_io.read(shared / "checkpoints" / f"{name}_ckpt.pth").arrays,
        )
        (spec, current), (_, reference) = map(convert.from_torch, states)
        models = tuple(
            jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
            for variables in (current, reference)
        )
        rows = arrays["sample_index"]
        data = load(f"parquet:{shared}/data/{DATA[request.param]}[:{rows.max() + 1}]")
        images, labels = data.images, data.labels
        np.testing.assert_array_equal(labels[rows], arrays["labels"])
        batch = sau.Batch(
            jnp.asarray(images[rows], jnp.float64), jnp.asarray(labels[rows]), jnp.ones(64, bool)
        )
        answers = tuple(jnp.argmax(spec.apply(v, batch.images, train=False)[0], axis=1) for v in models)
        yield Golden(arrays, spec, models, batch, answers)


@pytest.mark.parametrize("name", all_slow_but("perturbation_1step_lr005", SEARCHES))
def test_perturbation(golden: Golden, name: str) -> None:
    spec, models, batch, answers = golden[1:]
    config, expected = SEARCHES[name], golden.arrays[name]
    found = sau.search(spec.apply, models, batch, answers, config, jax.random.key(0))
    differs = ~np.isclose(found, expected, rtol=0, atol=1e-12)
    assert differs.mean() <= 1e-3
    # An entry may differ only where, on the way, the sign of a gradient of rounding size was taken.
    vanished = np.zeros_like(differs)
    for steps in range(config.search_steps):
        shorter = dataclasses.replace(config, search_steps=steps)
        delta = sau.search(spec.apply, models, batch, answers, shorter, jax.random.key(0))
        gradient = np.abs(
            jax.grad(sau.search_loss, argnums=2)(spec.apply, models, delta, batch, answers, config)
        )
        vanished |= gradient <= 1e-9 * gradient.max(axis=(1, 2, 3), keepdims=True)
    assert not np.any(differs & ~vanished)


def test_loss_terms(golden: Golden) -> None:
    spec, models, batch, answers = golden[1:]
    delta = jnp.asarray(golden.arrays["perturbation"])
    perturbed = batch._replace(images=batch.images + delta)
    examples = sau.examine(spec.apply, models[1], perturbed, answers[1])
    np.testing.assert_array_equal(examples.fooled, golden.arrays["potential_poison"])
    _, (losses, *_) = sau.unlearning_loss(
        spec.apply, models[0], batch, examples, REFERENCE, jax.random.key(0)
    )
    np.testing.assert_allclose(losses.clean, golden.arrays["loss_clean"], rtol=1e-8)
    np.testing.assert_allclose(losses.shared, golden.arrays["loss_shared"], rtol=1e-8)


@pytest.mark.slow
def test_one_step_of_the_whole_model(golden: Golden) -> None:
    spec, models, batch, answers = golden[1:]
    networks = []
    for variables in models:
        network = torch_ibau.SmallVGG(spec.classes).double().eval()
        arrays = convert.to_torch(spec, jax.tree.map(np.asarray, variables))
        network.load_state_dict(
            {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}, strict=False
        )
        networks.append(network)
    optimizer = torch.optim.Adam(networks[0].parameters(), lr=1e-4, amsgrad=True)
    images = torch.from_numpy(
        np.asarray(batch.images).transpose(0, 3, 1, 2).copy()
    )  # contiguous: pooling has ties
    torch_sau.unlearn_batch(
        networks[0], networks[1], optimizer, images, torch.from_numpy(np.array(batch.labels)).long()
    )

    params, frozen = algorithm.partition(models[0], algorithm.trainable_mask(models[0]))
    carry = (params, frozen, algorithm.direction("amsgrad").init(params), None)
    x = (batch, answers[1], jax.random.key(0), jnp.asarray(1e-4))
    (params, frozen, *_), _ = algorithm._descend(spec.apply, (models[1], REFERENCE), carry, x)
    found = convert.to_torch(spec, jax.tree.map(np.asarray, algorithm.combine(params, frozen)))
    before = convert.to_torch(spec, jax.tree.map(np.asarray, models[0]))
    for key, value in networks[0].named_parameters():
        np.testing.assert_allclose(found[key], value.detach().numpy(), rtol=1e-6, atol=1e-9, err_msg=key)
        assert not np.array_equal(found[key], before[key])
