"""The methods that the contract holds for, each with settings that make it fast on a toy problem."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxunlearn import dau, finetune, ibau, sau, ulrl
from tests import toys


class Case(NamedTuple):
    """A method with settings.

    Attributes:
      method: the package: ``unlearn``, ``make_method``, ``Execution`` and ``Data``.
      config: two rounds of two or three steps.
      bad_settings: settings that must be refused, each with the value.
      diverging: settings that give NaN or infinity in the second round at the latest.
      keywords: what else the method wants to know about the network.
      moves_statistics: whether it ends with other running statistics than it began with.
      data: images and labels, as many as are asked for.
    """

    method: Any
    config: Any
    bad_settings: dict[str, Any]
    diverging: dict[str, Any]
    keywords: dict[str, Any]
    moves_statistics: bool = False
    data: Callable[..., Any] = toys.images_and_labels

    def make_method(self) -> Any:
        """The method for the toy network."""
        return self.method.make_method(toys.apply_fn, self.method.Execution(), **self.keywords)

    def unlearn(self, apply_fn: Callable[..., Any], *args: Any, loop: str = "auto") -> Any:
        """Runs the method with one of its loops."""
        execution = self.method.Execution(loop=loop)
        return self.method.unlearn(apply_fn, *args, execution=execution, **self.keywords)


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
    "perturbed_share": 1.5,
    "perturbations": "both",
    "norm": "l7",
    "start": "middle",
    "schedule": "never",
}

_ULRL_BAD = {
    "rounds": 1,
    "unlearning_rounds": 0,
    "batch_size": -1,
    "learning_rate": 0.0,
    "unlearning_rate": float("nan"),
    "threshold": -3.5,
    "penalty": -0.1,
    "trials": 0,
    "layers": "some",
    "order": "chance",
}

_DIVERGING = {"learning_rate": 1e38, "optimizer": "sgd", "schedule": "constant"}
_ULRL_DIVERGING = {"learning_rate": 1e38, "momentum": 1e3}


_FINETUNE_BAD = {
    "rounds": 0,
    "batch_size": -1,
    "learning_rate": 0.0,
    "weight_decay": -1e-4,
    "sharpness_radius": float("nan"),
    "optimizer": "magic",
    "schedule": "never",
}


def _finetune(**changes: Any) -> Case:
    config = finetune.Config(rounds=2, batch_size=8, **changes)
    return Case(finetune, config, _FINETUNE_BAD, {"learning_rate": 1e38}, {}, moves_statistics=True)


def _ibau(config: Any, **changes: Any) -> Case:
    config = dataclasses.replace(config, rounds=2, batch_size=8, **changes)
    return Case(ibau, config, _IBAU_BAD, _DIVERGING, {})


def _sau(config: Any, **changes: Any) -> Case:
    config = dataclasses.replace(config, rounds=2, batch_size=8, **changes)
    return Case(sau, config, _SAU_BAD, _DIVERGING, {}, moves_statistics=config.train_mode)


def _ulrl(config: Any, **changes: Any) -> Case:
    config = dataclasses.replace(config, rounds=2, unlearning_rounds=1, batch_size=8, **changes)
    moves = config.relearning == "train"
    return Case(ulrl, config, _ULRL_BAD, _ULRL_DIVERGING, {"head": "head"}, moves_statistics=moves)


_DAU_BAD = {
    "rounds": 1,
    "isolation_rounds": -1,
    "batch_size": -1,
    "learning_rate": 0.0,
    "isolated_share": 1.5,
    "clip_norm": 0.0,
    "prefilter": "magic",
    "loss": "none",
}


def _dau(config: Any, **changes: Any) -> Case:
    """So loose that a few of the toy's images are taken for poisoned, those first that are in a group of their own."""
    loose = {
        "suspect_weight": 10.0,
        "discriminator_rate": 0.5,
        "isolated_share": 0.5,
        "gain": 0.0,
    }
    config = dataclasses.replace(config, batch_size=8, discriminator_steps=30, **loose, **changes)
    diverging = {"learning_rate": 1e38, "momentum": 1e3, "schedule": "constant"}
    keywords = {"head": "head", "fresh": toys.fresh}
    return Case(
        dau, config, _DAU_BAD, diverging, keywords, moves_statistics=True, data=toys.with_white_images
    )


CASES = {
    "ibau-reference": _ibau(ibau.PRESETS["reference"], ascent_rate=1.0),
    "ibau-default": _ibau(ibau.PRESETS["default"], least_steps=5),
    "ibau-augmented-cg": _ibau(
        ibau.PRESETS["backdoorbench"],
        crop_padding=1,
        inner_batch="random",
        solver="normal_cg",
        solver_steps=3,
    ),
    "ulrl-reference": _ulrl(ulrl.PRESETS["reference"], crop_padding=1),
    "ulrl-all-layers": _ulrl(ulrl.PRESETS["reference-gtsrb"], layers="all", threshold=0.5),
    "ulrl-default": _ulrl(ulrl.PRESETS["default"], trials=2, threshold=0.5),
    "dau-default": _dau(dau.PRESETS["default"], rounds=2, superpositions=8, forgotten=0.0),
    "dau-isolating": _dau(
        dau.PRESETS["isolating"],
        rounds=3,
        isolation_rounds=1,
        forgotten=0.0,
        crop_padding=1,
    ),
    "dau-robust": _dau(
        dau.PRESETS["robust"],
        rounds=3,
        prefilter="loss",
        robust_rounds=2,
        resplit_round=2,
        relabel_round=1,
        loss="ascent",
        poisoned_statistics="own",
    ),
    "finetune": _finetune(crop_padding=1),
    "finetune-adamw": _finetune(optimizer="adamw", schedule="onecycle"),
    "finetune-sharpness-aware": _finetune(sharpness_aware=True, label_smoothing=0.1),
    "sau-reference": _sau(sau.PRESETS["reference"], learning_rate=1e-3),
    "sau-default": _sau(sau.PRESETS["default"], least_steps=3, first_steps=2),
    "sau-l2-random": _sau(
        sau.PRESETS["reference"],
        norm="l2",
        start="random",
        radius=1.0,
        step_size=0.3,
        clip_pixels=True,
        clamps=False,
        train_mode=True,
    ),
}
