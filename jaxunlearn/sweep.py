"""Many runs of a method in one program: checkpoints, numeric settings and seeds side by side."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Bool, PyTree

from jaxunlearn._check import check_whole
from jaxunlearn._loop import NO_ROUND, Data, Method
from jaxunlearn._tree import all_finite
from jaxunlearn._typing import PRNGKey, Variables


class Run(NamedTuple):
    """One run of a sweep.

    Attributes:
      variables: of the network to clean.
      config: of the method.
      key: of all random choices.
    """

    variables: Variables
    config: Any
    key: PRNGKey


class Swept(NamedTuple):
    """The results of a sweep; the leading axis of every array is the runs, in their order.

    Attributes:
      variables: cleaned.
      history: statistics of the rounds; second axis: rounds.
      finite: whether a run kept to finite numbers; the others' results mean nothing.
    """

    variables: Variables
    history: PyTree
    finite: Bool[np.ndarray, " runs"]


def grid(checkpoints: Iterable[Variables], configs: Iterable[Any], seeds: Iterable[int]) -> list[Run]:
    """The runs of every checkpoint with every config and every seed; seeds vary fastest.

    Raises:
      ValueError: if a seed is not in 0 to 2^32 - 1, of which JAX would take the lowest bits.

    Example:
      >>> len(grid([{"w": 0.0}], ["config"], range(3)))
      3
    """
    seeds = list(seeds)
    if wrong := [seed for seed in seeds if not 0 <= seed < 2**32]:
        raise ValueError(f"seed={wrong[0]!r} must be a whole number from 0 to {2**32 - 1}.")
    return [
        Run(variables, config, jax.random.key(seed))
        for variables, config, seed in itertools.product(checkpoints, configs, seeds)
    ]


def sweep(
    method: Method,
    runs: Sequence[Run],
    data: Data,
    *,
    at_once: int | None = None,
    sharding: jax.sharding.Sharding | None = None,
) -> Swept:
    """Runs a method many times at once: ``vmap`` of its own step, compiled once for all runs.

    Give the method the ``Execution`` that suits the device, as for a single run: a host loop on CPU, where
    programs with loops are slow, and a scan elsewhere, where a round of all runs becomes one program.

    Args:
      method: made by ``make_method`` of any of the methods.
      runs: variables of one structure, and configs that differ in numbers only.
      data: the images that all of them see.
      at_once: runs that the devices have room for; others wait, and results are kept on the host. All if None.
      sharding: of the leading axis, to spread the runs over devices, such as ``NamedSharding(jax.make_mesh((2,),
        ("runs",)), PartitionSpec("runs"))``; the number of runs at once must divide by theirs.

    Raises:
      ValueError: if there are no runs, ``at_once`` is not positive, the configs differ in a setting that shapes the
        program, or the variables in structure, shapes or dtypes.

    Example:
      >>> from jaxunlearn import finetune
      >>> def apply_fn(params, x, *, train):
      ...     return x.mean((1, 2)) @ params["w"], {}
      >>> data = Data(jnp.linspace(0, 1, 384).reshape(8, 4, 4, 3), jnp.arange(8) % 3)
      >>> method = finetune.make_method(apply_fn, finetune.Execution())
      >>> configs = [finetune.Config(rounds=2, learning_rate=rate) for rate in (0.01, 0.1)]
      >>> swept = sweep(method, grid([{"w": jnp.eye(3)}], configs, range(3)), data)
      >>> swept.variables["w"].shape, swept.history.loss.shape, swept.finite.tolist()
      ((6, 3, 3), (6, 2), [True, True, True, True, True, True])
    """
    runs = list(runs)
    if not runs:
        raise ValueError("runs holds no run; give at least one.")
    shapes = {(jax.tree.structure((run.variables, run.config)), _forms(run.variables)) for run in runs}
    if len(shapes) != 1:
        raise ValueError(
            f"runs={len(runs)} differ in {len(shapes)} ways besides their numbers; sweep them one group at a time."
        )
    if at_once is not None:
        check_whole(1, at_once=at_once)
    # On the devices, because the rows of a batch are traced; what is there already stays where it lies.
    images = data.images if isinstance(data.images, jax.Array) else jnp.asarray(np.asarray(data.images))
    data = Data(images, jnp.asarray(data.labels))
    if at_once is not None and len(runs) > at_once:
        starts = range(0, len(runs), at_once)
        groups = [runs[start : start + at_once] for start in starts]
        # As many runs in the last group, so that one program is enough.
        filled = [[*group, *[group[-1]] * (at_once - len(group))] for group in groups]
        parts = [jax.tree.map(np.asarray, sweep(method, some, data, sharding=sharding)) for some in filled]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(runs)], *parts)
    stacked = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *runs)
    if sharding is not None:
        stacked = jax.device_put(stacked, _automatic(sharding))
    state = jax.vmap(lambda run: method.init(run.variables, data, run.config, run.key))(stacked)
    # All runs are in the same round, and only what that needs is computed.
    state = state._replace(round=NO_ROUND)
    axes = type(state)(**(dict.fromkeys(state._fields, 0) | {"round": None}))
    step = jax.vmap(method.step, in_axes=(axes, None), out_axes=(axes, 0))
    history = []
    for _ in range(runs[0].config.rounds):
        state, stats = step(state, data)
        history.append(stats)
    variables = jax.vmap(method.finish, in_axes=(axes,))(state)
    statistics = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *history)
    return Swept(variables, statistics, np.asarray(jax.vmap(all_finite)((variables, statistics))))


def _forms(variables: Variables) -> tuple[tuple[tuple[int, ...], Any], ...]:
    return tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(variables))


def _automatic(sharding: jax.sharding.Sharding) -> jax.sharding.Sharding:
    """The same devices on a mesh whose axes the compiler may spread further; those of ``jax.make_mesh`` are explicit.

    Types of a program whose axes are explicit name its sharding, and the methods' programs do not.
    """
    if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh):
        return sharding
    mesh = Mesh(sharding.mesh.devices, sharding.mesh.axis_names)
    return NamedSharding(mesh, sharding.spec, memory_kind=sharding.memory_kind)
