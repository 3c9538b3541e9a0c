"""Many runs in one program equal the same runs one by one."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxunlearn import Data, finetune, sweep
from tests import toys
from tests.contract.methods import CASES


@pytest.mark.parametrize(
    "name",
    [
        "finetune",
        "ibau-default",
        "dau-default",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("sau-default", "ulrl-default")),
    ],
)
def test_a_sweep_equals_its_runs(name: str) -> None:
    case = CASES[name]
    images, labels = toys.images_and_labels(20)
    configs = [dataclasses.replace(case.config, learning_rate=rate) for rate in (1e-3, 1e-2)]
    runs = sweep.grid([toys.variables(0), toys.variables(1)], configs, [0, 5])
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match=f"seed={seed} must be a whole number from 0 to 4294967295"):
            sweep.grid([], configs, [seed])
    method = case.make_method()
    rounds: list[int] = []

    def step(state: Any, data: Data) -> Any:
        rounds.append(int(state.round))  # has a value, so that a round computes only what it needs
        return method.step(state, data)

    swept = sweep.sweep(method._replace(step=step), runs, Data(images, labels))
    assert rounds == list(range(case.config.rounds))
    assert swept.finite.tolist() == [True] * 8
    assert not np.allclose(*swept.variables["params"]["head"][:2])  # seeds differ
    for number, run in enumerate(runs):
        alone, history = case.unlearn(toys.apply_fn, run.variables, images, labels, run.config, run.key)
        found = jax.tree.map(lambda leaf, n=number: leaf[n], (swept.variables, swept.history))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, (alone, history)
        )


def test_groups_give_what_all_runs_at_once_give() -> None:
    """The last group is filled up, so that no group has a program of its own."""
    images, labels = toys.images_and_labels(20)
    configs = [finetune.Config(rounds=2, batch_size=8, learning_rate=rate) for rate in (0.01, 1e38)]
    runs = sweep.grid([toys.variables(0), toys.variables(1)], configs, [0, 1])
    sizes: list[int] = []

    def swept(at_once: int | None) -> sweep.Swept:
        return sweep.sweep(counting, runs, Data(images, labels), at_once=at_once)

    method = finetune.make_method(toys.apply_fn, finetune.Execution())
    counting = method._replace(finish=lambda state: sizes.append(1) or method.finish(state))
    whole, grouped = swept(None), swept(3)
    assert len(sizes) == 1 + 3
    assert grouped.finite.tolist() == whole.finite.tolist() == [True, True, False, False] * 2
    keep = whole.finite
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[keep], b[keep], rtol=1e-5, atol=1e-6),
        (grouped.variables, grouped.history),
        jax.tree.map(np.asarray, (whole.variables, whole.history)),
    )
    with pytest.raises(ValueError, match="at_once=0 must be a whole number of at least 1"):
        swept(0)


def test_a_second_sweep_compiles_nothing() -> None:
    images, labels = toys.images_and_labels(20)
    method = finetune.make_method(toys.apply_fn, finetune.Execution())

    def swept(rate: float) -> sweep.Swept:
        configs = [finetune.Config(rounds=1, batch_size=8, learning_rate=rate * n) for n in (1, 2)]
        return sweep.sweep(method, sweep.grid([toys.variables(0)], configs, [0]), Data(images, labels))

    swept(0.01)
    compiled: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        swept(0.02)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled


def test_a_run_that_diverges_is_told_apart() -> None:
    images, labels = toys.images_and_labels(20)
    method = finetune.make_method(toys.apply_fn, finetune.Execution())
    configs = [finetune.Config(rounds=2, batch_size=8, learning_rate=rate) for rate in (0.01, 1e38)]
    swept = sweep.sweep(method, sweep.grid([toys.variables(0)], configs, [0]), Data(images, labels))
    assert swept.finite.tolist() == [True, False]


def test_runs_must_have_one_shape() -> None:
    images, labels = toys.images_and_labels(20)
    method = finetune.make_method(toys.apply_fn, finetune.Execution())
    runs = sweep.grid([toys.variables(0)], [finetune.Config(), finetune.Config(rounds=2)], [0])
    with pytest.raises(ValueError, match="2 ways"):
        sweep.sweep(method, runs, Data(images, labels))


def test_runs_spread_over_devices_give_the_same() -> None:
    """Axes of ``jax.make_mesh`` are explicit unless told."""
    images, labels = toys.images_and_labels(20)
    method = finetune.make_method(toys.apply_fn, finetune.Execution())
    runs = sweep.grid([toys.variables(0)], [finetune.Config(rounds=1, batch_size=8)], range(4))
    mesh = jax.make_mesh((2,), ("runs",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2])
    split = NamedSharding(mesh, PartitionSpec("runs"))
    alone, spread = (sweep.sweep(method, runs, Data(images, labels), sharding=how) for how in (None, split))
    assert len({shard.device for shard in jax.tree.leaves(spread.variables)[0].addressable_shards}) == 2
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        jax.tree.map(np.asarray, spread),
        jax.tree.map(np.asarray, alone),
    )
