"""The presets that are called published have the numbers of the official code, and nothing that is ours."""

import dataclasses
from typing import Any

import pytest

from jaxunlearn import finetune, ibau, sau, ulrl

IBAU = {
    "rounds": 5, "ascent": "sgd", "ascent_rate": 10.0, "penalty": 0.001, "solver": "neumann", "solver_steps": 5,
    "fixed_point_step": 0.1, "perturbed_share": 0.01, "clip_pixels": False, "schedule": "constant",
}  # fmt: skip
OFFICIAL_IBAU = IBAU | {"batch_size": 100, "optimizer": "adam", "learning_rate": 1e-3, "crop_padding": 0}
IN_THE_BENCHMARK = IBAU | {
    "batch_size": 256, "optimizer": "amsgrad", "learning_rate": 1e-4, "crop_padding": 4,
}  # fmt: skip
FORGETTING = {
    "unlearning_rounds": 20, "rounds": 40, "batch_size": 128, "unlearning_rate": 0.01, "drop_every": 10,
    "weight_decay": 5e-4, "clip_norm": 20.0, "stop_accuracy": 0.2, "threshold": 3.5, "most": 2.0,
    "order": "index", "layers": "head", "relearning": "train", "momentum": 0.9, "schedule": "cosine",
    "crop_padding": 4,
}  # fmt: skip
SHARPNESS_AWARE = {"batch_size": 256, "sharpness_aware": True, "crop_padding": 4, "learning_rate": 0.01}


@pytest.mark.parametrize(
    ("method", "preset", "official"),
    [
        (ibau, "reference", OFFICIAL_IBAU | {"flip": False, "inner_batch": "first", "radius": float("inf")}),
        (ibau, "paper", OFFICIAL_IBAU | {"flip": False, "inner_batch": "random", "radius": 10.0}),
        (ibau, "backdoorbench", IN_THE_BENCHMARK | {"flip": True}),
        (ibau, "backdoorbench-gtsrb", IN_THE_BENCHMARK | {"flip": False}),
        (
            sau,
            "reference",
            {"rounds": 100, "batch_size": 256, "norm": "linf", "radius": 0.2, "step_size": 0.2, "search_steps": 5}
            | {"start": "max", "clean_weight": 1.0, "shared_weight": 1.0, "adversarial_weight": 0.0}
            | {"agreement_weight": 1.0, "fooling_weight": 0.01, "optimizer": "amsgrad", "learning_rate": 1e-4}
            | {"schedule": "constant", "clip_pixels": False, "clamps": True, "train_mode": False},
        ),
        (ulrl, "reference", FORGETTING | {"learning_rate": 0.005, "penalty": 0.7, "flip": True}),
        *(
            (ulrl, f"reference-{data}", FORGETTING | {"learning_rate": 0.001, "penalty": 0.001, "flip": False})
            for data in ("cifar100", "gtsrb", "tiny")
        ),
        (finetune, "ft-sam", SHARPNESS_AWARE | {"rounds": 100, "sharpness_radius": 2.0, "flip": True}),
        (finetune, "ft-sam-gtsrb", SHARPNESS_AWARE | {"rounds": 50, "sharpness_radius": 8.0, "flip": False}),
    ],
)  # fmt: skip
def test_published_presets_have_the_official_numbers(
    method: Any, preset: str, official: dict[str, Any]
) -> None:
    given = dataclasses.asdict(method.PRESETS[preset])
    assert {name: given[name] for name in official} == official


@pytest.mark.parametrize(
    ("method", "ours"),
    [
        (
            ibau,
            {"perturbations": "one", "remember": False, "distillation": False, "least_steps": 1, "damping": 0.0}
            | {"scale_low": 1.0, "scale_high": 1.0},
        ),
        (
            sau,
            {"perturbations": "images", "distillation": False, "least_steps": 1, "perturbed_share": 1.0}
            | {"scale_low": 1.0, "scale_high": 1.0},
        ),
        (ulrl, {"trials": 1, "largest_share": 1.0}),
    ],
)  # fmt: skip
def test_published_presets_have_nothing_of_ours(method: Any, ours: dict[str, Any]) -> None:
    for preset in set(method.PRESETS) - {"default", "fast"}:
        given = dataclasses.asdict(method.PRESETS[preset])
        assert {name: given[name] for name in ours} == ours, preset
