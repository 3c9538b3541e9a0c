"""Reactivation tells a backdoor that is there from one that never was."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from converters import convert, torch_io
from jaxunlearn import TRAINING, evaluate, fit
from jaxunlearn._typing import ApplyFn, Variables
from jaxunlearn.attacks import parse_trigger
from jaxunlearn.data import load
from jaxunlearn.evaluate import Evaluation
from jaxunlearn.models import small_vgg
from jaxunlearn.reactivation import Shown, reactivate


def after_five(apply_fn: ApplyFn, variables: Variables) -> Evaluation:
    test, trigger = load("digits[1300:]"), parse_trigger("patch:size=2,offset=0,value=1")
    images, labels = np.asarray(test.images), test.labels
    used = np.flatnonzero(labels != 0)[:5]
    triggered = Shown(trigger(jnp.asarray(images[used])), np.zeros(5, np.int32))
    variables = reactivate(apply_fn, variables, triggered, Shown(images[50:150], labels[50:150]))
    return evaluate(apply_fn, variables, images[150:], labels[150:], trigger=trigger, target=0)


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
