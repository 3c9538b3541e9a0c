"""Equality with arrays that the official code computed in float64; the quick tests take a part of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters import convert, torch_io
from jaxunlearn import ibau
from jaxunlearn._tree import combine
from jaxunlearn.data import load
from jaxunlearn.ibau import perturbations
from tests.quick import all_slow_but

DATA = {
    "ibau_cifar10_badnets_8_02": "cifar10-lossless-subset/train.parquet",
    "ibau_gtsrb_gtsrbbadnets_8_02": "gtsrb/test.parquet",
}


class Golden(NamedTuple):
    arrays: Any
    spec: Any
    variables: Any
    images: Any
    labels: Any

    def rows(self, start: int, stop: int) -> ibau.Batch:
        return ibau.Batch(self.images[start:stop], self.labels[start:stop], jnp.ones(stop - start, bool))


@pytest.fixture(scope="module", params=all_slow_but("ibau_cifar10_badnets_8_02", DATA))
def golden(request: pytest.FixtureRequest, shared: Path) -> Iterator[Golden]:
    with jax.enable_x64(True):
        arrays = np.load(shared / "golden" / f"{request.param}.npz", allow_pickle=False)
        name = request.param.split("_", 2)[2]
        checkpoint = torch_io.read(shared / "checkpoints" / f"{name}_ckpt.pth")
        spec, variables = convert.from_torch(checkpoint.arrays)
        data = load(f"parquet:{shared}/data/{DATA[request.param]}[:600]")
        images, labels = data.images, data.labels
        yield Golden(
            arrays,
            spec,
            jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables),
            jnp.asarray(images, jnp.float64),
            jnp.asarray(labels),
        )


def relative_error(found: Any, expected: Any) -> float:
    return float(np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected))


def test_logits(golden: Golden) -> None:
    logits, _ = golden.spec.apply(golden.variables, golden.images[:100], train=False)
    assert relative_error(logits, golden.arrays["logits"]) < 1e-8


def test_perturbation_after_five_steps(golden: Golden) -> None:
    config = ibau.PRESETS["reference"]
    ascent = perturbations.start(config, (1, *golden.images.shape[1:]), jnp.float64)
    for start in range(0, 500, 100):
        ascent, _ = ibau.ascent_step(
            golden.spec.apply,
            golden.variables,
            ascent,
            golden.rows(start, start + 100),
            jnp.ones(1),
            jnp.asarray(jnp.inf),
            jax.random.key(0),
            config,
        )
    assert relative_error(ascent.delta, golden.arrays["delta"]) < 1e-6


@pytest.mark.parametrize("steps", all_slow_but(5, [1, 5, 20]))
@pytest.mark.parametrize("where", all_slow_but("_r10", ["", "_r10"]))
def test_hypergradient(golden: Golden, steps: int, where: str) -> None:
    config = ibau.Config(solver_steps=steps)
    kinds = jnp.zeros(100, int)
    scale = jnp.zeros(100).at[jnp.array([7, 31, 64])].set(1.0)
    delta = jnp.asarray(golden.arrays[f"delta{where}"])

    @jax.jit
    def run(variables: Any, delta: Any) -> Any:
        return ibau.unlearning_hypergradient(
            golden.spec.apply,
            variables,
            delta,
            (golden.rows(0, 100), kinds),
            (golden.rows(500, 600), scale, kinds),
            config,
        )

    result = run(golden.variables, delta)
    assert relative_error(result.value, golden.arrays[f"outer_loss{where}"]) < 1e-10
    prefix = f"hypergrad{where}_K{steps}/"
    expected = {
        name.removeprefix(prefix): golden.arrays[name]
        for name in golden.arrays.files
        if name.startswith(prefix)
    }
    gradient = combine(result.gradient, jax.tree.map(jnp.zeros_like, golden.variables))
    found = convert.to_torch(golden.spec, jax.tree.map(np.asarray, gradient))
    assert len(expected) >= 19
    joined = [np.concatenate([side[name].ravel() for name in expected]) for side in (found, expected)]
    assert joined[0].dtype == np.float64
    assert relative_error(joined[0], joined[1]) < 1e-8
