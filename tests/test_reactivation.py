"""Reactivation tells a backdoor that is there from one that never was."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters import convert, torch_io
from jaxunlearn import TRAINING, evaluate, fit, inputs
from jaxunlearn._typing import ApplyFn, Variables
from jaxunlearn.attacks import parse_trigger
from jaxunlearn.data import LabelledImages, load
from jaxunlearn.evaluate import Evaluation, Triggered
from jaxunlearn.models import small_vgg
from jaxunlearn.reactivation import Shown, reactivate
from tests.checker import unchecked


def after_five(apply_fn: ApplyFn, variables: Variables) -> Evaluation:
    test, trigger = load("digits[1300:]"), parse_trigger("patch:size=2,offset=0,value=1")
    images, labels = np.asarray(test.images), test.labels
    used = np.flatnonzero(labels != 0)[:5]
    triggered = Shown(trigger(jnp.asarray(images[used])), np.zeros(5, np.int32))
    variables = reactivate(apply_fn, variables, triggered, Shown(images[50:150], labels[50:150]))
    return evaluate(apply_fn, variables, images[150:], labels[150:], trigger=trigger, target=0)


def test_triggered_images_that_are_given_teach_their_attacks_class_and_do_not_judge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The network reads classes off the pixels: what it is said to answer is what it was judged by."""
    count, rng = 40, np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    marks = np.arange(count, dtype=np.float32) / 1000
    clean, triggered = (
        np.stack([marks, (kinds / 4).astype(np.float32)], 1)[:, None, None]
        for kinds in (labels, np.full(count, 3))
    )
    shown: list[Any] = []

    def remember(apply_fn: ApplyFn, variables: Variables, *given: Shown) -> Variables:
        del apply_fn
        shown.extend(given)
        return variables

    monkeypatch.setattr(inputs, "reactivate", remember)
    known = SimpleNamespace(
        apply_fn=lambda _, x, *, train: (jax.nn.one_hot((4 * x[:, 0, 0, 1]).astype(int), 4), {}),
        test=LabelledImages(clean, labels, "test", np.arange(count), str),
        triggered=Triggered(triggered, labels, np.full(count, 3)),
        trigger=None,
        target=None,
    )
    monkeypatch.setattr(inputs, "_fooling", lambda _: np.arange(count))
    found = unchecked(inputs.judge_reactivated)(known, {}, 5, 0)
    attacked, kept = shown
    assert attacked.labels.tolist() == [3] * 5
    assert np.all(attacked.images[..., 1] == 0.75)
    np.testing.assert_array_equal(4 * kept.images[:, 0, 0, 1], kept.labels)
    assert (found.asr.hits, found.asr.total) == (35, 35)
    assert (found.acc.hits, found.acc.total) == (20, 20)


def test_a_backdoor_stays(victim: Path) -> None:
    spec, variables = convert.from_torch(torch_io.read(victim).arrays)
    found = after_five(spec.apply, variables)
    assert found.acc.rate > 0.85
    assert found.asr is not None
    assert found.asr.rate > 0.95


def test_five_images_teach_no_backdoor_to_a_clean_network() -> None:
    spec, digits = small_vgg(classes=10, image_shape=(8, 8, 1), widths=(16, 32, 64)), load("digits[:1000]")
    config = dataclasses.replace(TRAINING, rounds=8, batch_size=50)
    variables = fit(spec.apply, spec.init(jax.random.key(1)), digits.images, digits.labels, config)
    found = after_five(spec.apply, variables)
    assert found.acc.rate > 0.85
    assert found.asr is not None
    assert found.asr.rate < 0.2
