"""The methods that the contract holds for, each with settings that make it fast on a toy problem."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxunlearn import ibau, sau


class Case(NamedTuple):
    """A method with settings.

    Attributes:
      method: the package: ``unlearn``, ``make_method``, ``Execution`` and ``Data``.
      config: two rounds of two or three steps.
      bad_settings: settings that must be refused, each with the value.
    """

    method: Any
    config: Any
    bad_settings: dict[str, Any]

    def unlearn(self, apply_fn: Callable[..., Any], *args: Any, loop: str = "auto") -> Any:
        """Runs the method with one of its loops."""
        return self.method.unlearn(apply_fn, *args, execution=self.method.Execution(loop=loop))


_IBAU_BAD = {
    "rounds": 0,
    "batch_size": -1,
    "learning_rate": 0.0,
    "ascent_rate": float("nan"),
    "radius": -1.0,
    "solver": "magic",
    "shuffle": "often",
    "damping": -0.1,
}

_SAU_BAD = {
    "rounds": 0,
    "batch_size": -1,
    "learning_rate": 0.0,
    "radius": float("inf"),
    "shared_weight": -1.0,
    "norm": "l7",
    "start": "middle",
    "schedule": "never",
}

_IBAU = {
    name: Case(ibau, dataclasses.replace(config, rounds=2, batch_size=8, **changes), _IBAU_BAD)
    for name, config, changes in (
        ("ibau-reference", ibau.PRESETS["reference"], {"ascent_rate": 1.0}),
        ("ibau-default", ibau.PRESETS["default"], {"least_steps": 5}),
        (
            "ibau-augmented-cg",
            ibau.PRESETS["backdoorbench"],
            {"crop_padding": 1, "inner_batch": "random", "solver": "normal_cg", "solver_steps": 3},
        ),
    )
}

_SAU = {
    name: Case(
        sau, dataclasses.replace(sau.PRESETS["reference"], rounds=2, batch_size=8, **changes), _SAU_BAD
    )
    for name, changes in (
        ("sau-reference", {"learning_rate": 1e-3}),
        (
            "sau-l2-random",
            {
                "norm": "l2",
                "start": "random",
                "radius": 1.0,
                "step_size": 0.3,
                "clip_pixels": True,
                "clamps": False,
            },
        ),
    )
}
CASES = {**_IBAU, **_SAU}
