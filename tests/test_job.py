"""Runs in this process, with methods made up for the test."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters import convert, torch_io
from jaxunlearn import ibau, job
from jaxunlearn._loop import Method, NonFiniteError
from jaxunlearn.display import make_display
from jaxunlearn.inputs import Request
from jaxunlearn.models import small_vgg


class _State(NamedTuple):
    variables: Any
    round: Any


def failing_in(number: int) -> job.Procedure:
    """A method that gives NaN in one round."""

    def make_method(apply_fn: Any, execution: Any) -> Method:
        def step(state: _State, data: Any) -> Any:
            now = state.round + 1
            scale = jnp.where(now == number, jnp.nan, 0.99)
            return _State(jax.tree.map(lambda leaf: leaf * scale, state.variables), now), scale

        return Method(
            lambda variables, *_: _State(variables, jnp.asarray(0)), step, lambda state: state.variables
        )

    evidence = job.Evidence({"sentence": "nothing was looked for."}, {})
    return job.Procedure(
        "failing", make_method, lambda _: {"loss": 0.0}, lambda *_: evidence, lambda _: (1.0,)
    )


def request(folder: Path) -> Request:
    spec = small_vgg(10, (8, 8, 1), (4, 4, 4))
    arrays = convert.to_torch(spec, jax.tree.map(np.asarray, spec.init(jax.random.key(0))))
    (folder / "model.pth").write_bytes(torch_io.new_state_dict_bytes(arrays))
    return Request(
        checkpoint=folder / "model.pth",
        clean="digits[:40]",
        test="digits[40:80]",
        trigger=None,
        target=None,
        preset="reference",
        config=ibau.Config(rounds=3),
        seed=0,
        out=folder / "out",
        resume=False,
        force=False,
    )


def test_nan_in_a_later_round_keeps_the_last_good_one(tmp_path: Path) -> None:
    asked = request(tmp_path)
    report = job.run(failing_in(3), asked, make_display(quiet=True), time.monotonic())
    assert "Round 3 gave NaN" in report["stopped"]
    assert len(report["rounds"]) == 2
    before, after = (torch_io.read(path).arrays for path in (asked.checkpoint, asked.out / "model.pth"))
    key = "classifier.weight"
    np.testing.assert_allclose(after[key], before[key] * 0.99**2, rtol=1e-5)
    assert json.loads((asked.out / "report.json").read_text()) == report


def test_nan_in_the_first_round_leaves_nothing(tmp_path: Path) -> None:
    asked = request(tmp_path)
    with pytest.raises(NonFiniteError, match="Round 1"):
        job.run(failing_in(1), asked, make_display(quiet=True), time.monotonic())
    assert list(asked.out.iterdir()) == []
