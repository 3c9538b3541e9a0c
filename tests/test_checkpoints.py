"""The published backdoored checkpoints, where they stand beside the checkout."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from converters import convert, torch_io
from experiments import reproduction
from experiments.reproduce_ibau import STUDY
from jaxunlearn import ibau
from jaxunlearn.evaluate import evaluate
from tests.quick import all_slow_but


def official(shared: Path, name: str) -> Any:
    return json.loads((shared / "reference" / "ibau-official.json").read_text())["checkpoints"][name]


def first_and_last(
    shared: Path, name: str, config: ibau.Config, images: int = STUDY.clean_images
) -> tuple[dict[str, float], dict[str, float]]:
    """The rates before unlearning and after the last round."""
    done = reproduction.run(STUDY, shared, name, config, 0, images)
    return done["before"], done["rounds"][-1]


@pytest.mark.parametrize("name", all_slow_but("badnets_8_02_ckpt.pth", reproduction.CHECKPOINTS))
def test_the_numbers_before_are_the_official_ones(shared: Path, name: str) -> None:
    data, trigger, target = reproduction.CHECKPOINTS[name]
    _, test = reproduction.images_of(shared, data)
    model = convert.from_torch(torch_io.read(shared / "checkpoints" / name).arrays)
    found = evaluate(
        model.spec.apply,
        model.variables,
        test.images,
        test.labels,
        trigger=reproduction.trigger_of(shared, trigger),
        target=target,
    )
    for key, rate in official(shared, name)["before"].items():
        count = getattr(found, key)
        assert abs(count.hits - rate * count.total) <= 2, key


@pytest.mark.slow
@pytest.mark.parametrize("name", reproduction.CHECKPOINTS)
def test_default_preset(shared: Path, name: str) -> None:
    """One seed, about a minute per checkpoint."""
    before, after = first_and_last(shared, name, ibau.PRESETS["default"])
    assert after["asr"] <= 0.05
    assert after["acc"] >= before["acc"] - 0.02
    assert after["ra"] >= official(shared, name)["rounds"][-1]["ra"]


@pytest.mark.slow
@pytest.mark.parametrize("name", reproduction.CHECKPOINTS)
def test_reference_preset(shared: Path, name: str) -> None:
    """One seed, three minutes per checkpoint; the bounds that the mean of three seeds has to keep, twice as wide."""
    config = dataclasses.replace(ibau.PRESETS["reference"], rounds=3)
    _, after = first_and_last(shared, name, config)
    theirs = official(shared, name)["rounds"][-1]
    assert after["asr"] <= theirs["asr"] + 0.06
    assert after["acc"] >= theirs["acc"] - 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", ["badnets_8_02_ckpt.pth", "gtsrbtrojan_wm_2_02_ckpt.pth"])
def test_a_hundred_clean_images(shared: Path, name: str) -> None:
    before, after = first_and_last(shared, name, ibau.PRESETS["default"], 100)
    assert after["asr"] < 0.05 < before["asr"]
    assert after["acc"] > before["acc"] - 0.04
