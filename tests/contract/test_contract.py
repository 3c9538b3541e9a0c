"""What every method promises, as one table of methods times promises."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxunlearn import _checkpointing, _loop
from tests import toys
from tests.contract.methods import CASES, Case
from tests.quick import all_slow_but

KEY = jax.random.key(3)


# Other settings of a method that has a case already; `pytest -m slow tests/contract` runs them too.
VARIANTS = {
    "ibau-reference",
    "ibau-augmented-cg",
    "dau-isolating",
    "dau-robust",
    "ulrl-reference",
    "ulrl-all-layers",
    "finetune-sharpness-aware",
    "sau-reference",
    "sau-l2-random",
}


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in VARIANTS else []) for name in CASES]
)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def assert_equal(first: Any, second: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


def assert_close(first: Any, second: Any, rtol: float = 2e-4, atol: float = 2e-4) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), first, second)


def cleaned(case: Case, variables: Any = None, key: Any = KEY, **keywords: Any) -> Any:
    given = toys.variables() if variables is None else variables
    data = map(jnp.asarray, case.data())
    return case.unlearn(toys.apply_fn, given, *data, case.config, key, **keywords)


def test_same_key_gives_the_same_bits(case: Case) -> None:
    assert_equal(cleaned(case), cleaned(case))


def test_another_key_gives_another_result(case: Case) -> None:
    first, second = cleaned(case)[0], cleaned(case, key=jax.random.key(4))[0]
    assert not np.array_equal(first["params"]["head"], second["params"]["head"])


def test_it_changes_the_network(case: Case) -> None:
    before, (after, _) = toys.variables(), cleaned(case)
    for name, leaf in before["params"].items():
        assert not np.array_equal(leaf, after["params"][name]), name


def test_structure_shapes_and_dtypes_stay(case: Case) -> None:
    before, (after, _) = toys.variables(), cleaned(case)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)


def test_frozen_leaves_are_bit_identical(case: Case) -> None:
    before, after = toys.variables()["batch_stats"], cleaned(case)[0]["batch_stats"]
    assert_equal(after["count"], before["count"])
    assert np.array_equal(after["mean"], before["mean"]) == (not case.moves_statistics)


def test_history_has_one_entry_per_round(case: Case) -> None:
    _, history = cleaned(case)
    assert {len(leaf) for leaf in jax.tree.leaves(history)} == {case.config.rounds}


def test_scan_and_host_loop_agree(case: Case) -> None:
    assert_close(cleaned(case, loop="host"), cleaned(case, loop="scan"))


@pytest.mark.slow
def test_works_without_jit(case: Case) -> None:
    with jax.disable_jit():
        eager = cleaned(case, loop="host")
    assert_close(eager, cleaned(case))


def test_works_under_jit(case: Case) -> None:
    images, labels = case.data()

    @jax.jit
    def run(variables: Any, key: Any) -> Any:
        return case.unlearn(toys.apply_fn, variables, images, labels, case.config, key, loop="scan")

    assert_close(run(toys.variables(), KEY), cleaned(case))


@pytest.mark.parametrize("name", all_slow_but("finetune", CASES))
def test_works_under_jit_with_images_of_any_kind_and_the_usual_execution(name: str) -> None:
    case = CASES[name]
    expected = cleaned(case)
    for convert in (np.asarray, jnp.asarray):
        images, labels = map(convert, case.data())

        @jax.jit
        def run(key: Any, images: Any = images, labels: Any = labels) -> Any:
            return case.unlearn(toys.apply_fn, toys.variables(), images, labels, case.config, key)

        assert_close(run(KEY), expected)


def test_vmap_over_models_settings_and_keys_equals_a_loop(case: Case) -> None:
    rates, models, keys = (
        (1e-3, 3e-3, 5e-3),
        [toys.variables(seed) for seed in range(3)],
        jax.random.split(KEY, 3),
    )
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    images, labels = case.data()

    def run(variables: Any, rate: Any, key: Any) -> Any:
        config = dataclasses.replace(case.config, learning_rate=rate)
        return case.unlearn(toys.apply_fn, variables, images, labels, config, key, loop="scan")

    together = jax.vmap(run)(stacked, jnp.array(rates), keys)
    for number, (variables, rate, key) in enumerate(zip(models, rates, keys, strict=True)):
        config = dataclasses.replace(case.config, learning_rate=rate)
        alone = cleaned(case._replace(config=config), variables, key)
        assert_close(jax.tree.map(lambda leaf, n=number: leaf[n], together), alone)


@pytest.mark.parametrize("loop", ["host", "scan"])
def test_a_second_call_with_another_number_and_display_compiles_nothing(case: Case, loop: str) -> None:
    images, labels = case.data()
    case.unlearn(toys.apply_fn, toys.variables(), images, labels, case.config, KEY, loop=loop)
    other = dataclasses.replace(case.config, learning_rate=case.config.learning_rate * 2)
    compiled: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        told: list[int] = []
        shown = case.method.Execution(loop=loop, on_batch=lambda done, _: told.append(done))
        given = toys.apply_fn, toys.variables(1), images, labels, other, jax.random.key(9)
        case.method.unlearn(*given, execution=shown, **case.keywords)
        assert not compiled
        assert bool(told) == (loop == "host")
        jax.jit(lambda x: x + 3.25)(1.0)  # the listener does listen
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Network:
    """The toy network's variables in a class that is no mapping."""

    params: Any
    stats: Any

    @classmethod
    def of(cls, variables: Any) -> "Network":
        return cls(variables["params"], variables["batch_stats"]["mean"])

    def __call__(self, images: jax.Array, *, train: bool) -> Any:
        variables = {"params": self.params, "batch_stats": {"mean": self.stats}}
        return toys.apply_fn(variables, images, train=False)


def test_variables_are_any_pytree(case: Case) -> None:
    keywords = dict(case.keywords)
    if "head" in keywords:
        keywords["head"] = "params/head"
    if "fresh" in keywords:
        keywords["fresh"] = lambda key: Network.of(toys.fresh(key))
    given = Network.of(toys.variables())
    case = case._replace(keywords=keywords)
    after, history = case.unlearn(Network.__call__, given, *case.data(), case.config, KEY)
    assert isinstance(after, Network)
    nothing_found = "poisoned" in history._fields and not history.poisoned.any()
    assert np.array_equal(after.params["head"], given.params["head"]) == nothing_found


def test_resumed_run_equals_straight_run(case: Case, tmp_path: Path) -> None:
    data = _loop.Data(*case.data())
    method = case.make_method()
    start = method.init(toys.variables(), data, case.config, KEY)
    straight = [state for _, state, _ in _loop.rounds(method, start, data, 1, 2)]
    path = tmp_path / "state.npz"
    _checkpointing.save_state(path, straight[0], {"round": 1})
    loaded = _checkpointing.load_state(path, method.init(toys.variables(5), data, case.config, KEY))
    assert _checkpointing.load_notes(path) == {"round": 1}
    assert_equal(method.finish(straight[1]), method.finish(method.step(loaded, data)[0]))


def test_sharded_data_give_the_same_result(case: Case) -> None:
    config = dataclasses.replace(case.config, batch_size=8)
    images, labels = case.data(24)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))

    @jax.jit
    def run(images: Any, labels: Any) -> Any:
        return case.unlearn(toys.apply_fn, toys.variables(), images, labels, config, KEY, loop="scan")

    sharded = run(jax.device_put(images, split), jax.device_put(labels, split))
    assert_close(sharded, run(images, labels))


def test_bad_settings_are_refused_with_name_and_value(case: Case) -> None:
    for name, value in case.bad_settings.items():
        with pytest.raises(ValueError, match=name) as caught:
            dataclasses.replace(case.config, **{name: value})
        assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 6, 6), np.float32), np.zeros(4, np.int32), r"images has shape \(4, 6, 6\)"),
        (np.zeros((4, 6, 6, 1), np.uint8), np.zeros(4, np.int32), "dtype uint8"),
        (np.zeros((4, 6, 6, 1), np.float32), np.zeros(3, np.int32), r"labels has shape \(3,\)"),
        (np.zeros((4, 6, 6, 1), np.float32), np.zeros(4, np.float32), "labels has .* dtype float32"),
        (np.zeros((0, 6, 6, 1), np.float32), np.zeros(0, np.int32), "holds no image"),
        (np.zeros((4, 6, 6, 1), np.float32), np.arange(4), "labels run from 0 to 3 .* classes 0 to 2"),
        (np.zeros((4, 6, 6, 1), np.float32), np.arange(4) - 2, "labels run from -2 to 1"),
    ],
)
def test_mismatched_data_are_refused(case: Case, images: Any, labels: Any, message: str) -> None:
    method = case.make_method()
    with pytest.raises(ValueError, match=message):
        method.init(toys.variables(), _loop.Data(images, labels), case.config, KEY)


def test_nan_stops_the_run_and_keeps_the_last_good_state(case: Case) -> None:
    config = dataclasses.replace(case.config, **case.diverging)
    with pytest.raises(case.method.NonFiniteError) as caught:
        case.unlearn(toys.apply_fn, toys.variables(), *case.data(), config, KEY)
    assert caught.value.quantities
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(caught.value.last_good.params))
