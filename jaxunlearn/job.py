"""One run from files to files: check everything, judge, unlearn, judge again, write.

Nothing is written before every input is known to be good.
"""

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from converters import convert, torch_io
from converters.convert import Converted
from converters.torch_io import Checkpoint
from jaxunlearn import _checkpointing, _loop, report
from jaxunlearn._check import InputError
from jaxunlearn._files import write_together
from jaxunlearn._loop import Data, Execution, Method, NonFiniteError
from jaxunlearn._typing import PRNGKey, Variables
from jaxunlearn.attacks import Trigger, add_image, stamp_patch
from jaxunlearn.data import LabelledImages, hold_out, load, read_image
from jaxunlearn.display import Display, describe
from jaxunlearn.evaluate import Evaluation, evaluate, predict
from jaxunlearn.metrics import Count
from jaxunlearn.models import ModelSpec

STATE_FILE = "state.npz"
REPORT_FILE = "report.json"

_FEWEST_TO_CLEAN = 10
_FEWEST_TO_JUDGE = 10
_HELD_OUT_SHARE = 0.2
_MOST_HELD_OUT = 2000


class Procedure(NamedTuple):
    """What a run needs to know about a method.

    Attributes:
      name: of the method.
      make_method: from an ApplyFn and an Execution.
      losses: reads the named losses to show off a round's statistics.
      perturbations: reads the perturbation of every round off a state.
      passes: the passes of a round over the data with their relative cost, for the progress display.
    """

    name: str
    make_method: Callable[..., Method]
    losses: Callable[[Any], dict[str, float]]
    perturbations: Callable[[Any], np.ndarray]
    passes: Callable[[Any], tuple[float, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for.

    Attributes:
      checkpoint: path of the checkpoint.
      clean: source of the images to unlearn with.
      test: source of the images to judge by; None holds some of ``clean`` back.
      trigger: of the attack, where known; only to measure.
      target: of the attack, where known.
      preset: name of the preset that ``config`` started from.
      config: of the method.
      seed: of every random choice.
      out: the output folder.
      resume: go on with an interrupted run.
      force: overwrite an earlier run.
    """

    checkpoint: Path
    clean: str
    test: str | None
    trigger: str | None
    target: int | None
    preset: str
    config: Any
    seed: int
    out: Path
    resume: bool
    force: bool


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """Everything read and checked."""

    checkpoint: Checkpoint
    model: Converted
    clean: LabelledImages
    test: LabelledImages
    trigger: Trigger | None
    notices: list[str]

    @functools.cached_property
    def apply_fn(self) -> Callable[..., Any]:
        return self.model.spec.apply

    def judge(self, variables: Variables, target: int | None) -> Evaluation:
        images, labels = self.test.images, self.test.labels
        return evaluate(self.apply_fn, variables, images, labels, trigger=self.trigger, target=target)


def run(procedure: Procedure, request: Request, display: Display, loading_since: float) -> dict[str, Any]:
    """Runs a request and returns the report that it wrote.

    Args:
      procedure: the method.
      request: what was asked for.
      display: is told of the progress.
      loading_since: ``time.monotonic()`` of the program's start, to report the loading time.

    Raises:
      InputError: if an input cannot be used; nothing has been written then.
      NonFiniteError: if the first round already fails; of a later one the last good round is written.
      KeyboardInterrupt: if interrupted; ``resume`` goes on after the last finished round.
    """
    clock = _Clock(loading_since)
    inputs = _read(request)
    _check_folder(request)
    fingerprint = _fingerprint(procedure, request, inputs)
    variables = jax.tree.map(jnp.asarray, inputs.model.variables)
    clock.lap("load")
    for notice in inputs.notices:
        display.say(f"note: {notice}")

    data = Data(inputs.clean.images, inputs.clean.labels)
    weights = procedure.passes(request.config)
    execution = Execution(on_batch=_Progress(display, weights))
    method = procedure.make_method(inputs.apply_fn, execution)
    state = method.init(variables, data, request.config, jax.random.key(request.seed))
    state_file = request.out / STATE_FILE
    if request.resume:
        notes = _checkpointing.load_notes(state_file)
        _check_same(fingerprint, notes["fingerprint"])
        state = _checkpointing.load_state(state_file, state)
        before, history = _evaluation_from(notes["before"]), notes["rounds"]
        clock.resume(notes["seconds"])
        display.say(f"going on after round {len(history)}")
    else:
        before, history = inputs.judge(variables, request.target), []
        clock.lap("evaluate")
        _make_folder(request.out)
    display.say(f"before   {describe(before)}  ({before.acc.total} images)")

    def save() -> None:
        notes = {
            "fingerprint": fingerprint,
            "before": _evaluation_to(before),
            "rounds": history,
            "seconds": clock.seconds,
        }
        _checkpointing.save_state(state_file, state, notes)

    save()
    stopped = None
    display.start(request.config.rounds, len(history))
    try:
        for number, new_state, stats in _loop.rounds(
            method, state, data, len(history) + 1, request.config.rounds
        ):
            state = new_state
            clock.lap("unlearn")
            evaluation = inputs.judge(method.finish(state), request.target)
            losses = procedure.losses(stats)
            history.append({"round": number, **losses, **_evaluation_to(evaluation)})
            clock.lap("evaluate")
            save()
            display.round_done(number, losses, evaluation)
    except NonFiniteError as error:
        if not history:
            raise
        stopped = str(error)
        display.say(f"warning: {stopped}")
    finally:
        display.stop()

    cleaned = method.finish(state)
    after = _evaluation_from(history[-1])
    perturbations = procedure.perturbations(state)[: len(history)]
    evidence = _evidence(inputs, variables, cleaned, perturbations[0])
    clock.lap("evaluate")
    display.say(f"after    {describe(after)}")
    display.say(evidence["sentence"])

    arrays = convert.to_torch(
        inputs.model.spec, jax.tree.map(np.asarray, cleaned), like=inputs.checkpoint.arrays
    )
    model_bytes = torch_io.encode(inputs.checkpoint, arrays)
    content = report.assemble(
        method=procedure.name,
        preset=request.preset,
        config=request.config.as_dict(),
        seed=request.seed,
        spec=inputs.model.spec,
        before=before,
        after=after,
        rounds=history,
        evidence=evidence,
        inputs=fingerprint,
        input_sha256=inputs.checkpoint.sha256,
        output_sha256=hashlib.sha256(model_bytes).hexdigest(),
        seconds=clock.seconds,
        notices=inputs.notices,
        stopped=stopped,
    )
    example = inputs.test.images[_example(inputs.test, request.target)]
    write_together(
        request.out,
        {
            "model.pth": model_bytes,
            "model.safetensors": torch_io.encode_safetensors(inputs.checkpoint, arrays),
            "curves.png": report.draw_curves(before, history),
            "perturbation.png": report.draw_perturbation(example, perturbations, inputs.trigger, evidence),
            REPORT_FILE: (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(),
        },
    )
    state_file.unlink()
    return content


def parse_trigger(text: str) -> Trigger:
    """The trigger that a text names.

    Args:
      text: ``patch:size=4,offset=1,value=1`` (parts may be left out, these are the defaults) or
        ``image:FILE[,mask=FILE]``.

    Raises:
      InputError: if the text or a file cannot be used.
    """
    kind, _, rest = text.partition(":")
    if kind == "patch":
        try:
            given = dict(part.split("=") for part in rest.split(",") if part)
            size, offset = int(given.pop("size", 4)), int(given.pop("offset", 1))
            value = float(given.pop("value", 1))
        except ValueError:
            given = {"": ""}
        if not given and 0 <= value <= 1:
            return functools.partial(stamp_patch, size=size, offset=offset, value=value)
    elif kind == "image" and rest:
        picture, _, mask = rest.partition(",mask=")
        image = read_image(Path(picture))
        return functools.partial(add_image, image=image, mask=read_image(Path(mask)) if mask else None)
    raise InputError(
        f"{text!r} names no trigger; expected patch:size=4,offset=1,value=1 (value in 0..1) or "
        "image:FILE[,mask=FILE]."
    )


class _Clock:
    """Seconds by activity; compilation is told apart by listening to JAX."""

    def __init__(self, since: float) -> None:
        self.seconds = {"load": 0.0, "compile": 0.0, "unlearn": 0.0, "evaluate": 0.0}
        self._mark, self._compiled = since, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            self._compiled += duration

    def lap(self, activity: str) -> None:
        """The time since the last lap went into ``activity``, compilation apart."""
        now = time.monotonic()
        self.seconds[activity] += max(0.0, now - self._mark - self._compiled)
        self.seconds["compile"] += self._compiled
        self._mark, self._compiled = now, 0.0

    def resume(self, earlier: dict[str, float]) -> None:
        """Adds the seconds of the interrupted run."""
        self.seconds = {name: value + earlier[name] for name, value in self.seconds.items()}


class _Progress:
    """Turns batches done into shares of a round, weighing the passes by their cost."""

    def __init__(self, display: Display, weights: tuple[float, ...]) -> None:
        self._display, self._weights, self._pass = display, weights, 0

    def __call__(self, done: int, total: int) -> None:
        before = sum(self._weights[: self._pass])
        self._display.advance((before + self._weights[self._pass] * done / total) / sum(self._weights))
        if done == total:
            self._pass = (self._pass + 1) % len(self._weights)


def _read(request: Request) -> _Inputs:
    checkpoint = torch_io.read(request.checkpoint)
    model = convert.from_torch(checkpoint.arrays)
    clean = load(request.clean)
    _check_images(clean, model.spec)
    notices = []
    if request.test is None:
        clean, test = hold_out(clean, share=_HELD_OUT_SHARE, most=_MOST_HELD_OUT, seed=request.seed)
        test = dataclasses.replace(test, origin=f"{len(test.labels)} images held back from {clean.origin}")
        notices.append(
            f"no test images were given, so {len(test.labels)} of the clean images are held back to judge by; "
            f"a rate from {len(test.labels)} images is known to about +-{50 / len(test.labels) ** 0.5:.0f} points."
        )
    else:
        test = load(request.test)
        _check_images(test, model.spec)
    for data, fewest, purpose in (
        (clean, _FEWEST_TO_CLEAN, "clean with"),
        (test, _FEWEST_TO_JUDGE, "judge by"),
    ):
        if len(data.labels) < fewest:
            raise InputError(
                f"{data.origin} leaves {len(data.labels)} images to {purpose}; at least {fewest} are needed."
            )
    if len(np.unique(clean.labels)) < 2:
        raise InputError(
            f"All {len(clean.labels)} images of {clean.origin} are of class {clean.labels[0]}; give images of "
            "several classes."
        )
    trigger = _checked_trigger(request, model.spec, test)
    if trigger is None:
        notices.append("no trigger was given, so the attack success rate is unknown.")
    return _Inputs(checkpoint, model, clean, test, trigger, notices)


def _check_images(data: LabelledImages, spec: ModelSpec) -> None:
    if data.images.shape[1:] != spec.image_shape:
        found, expected = ("x".join(map(str, shape)) for shape in (data.images.shape[1:], spec.image_shape))
        raise InputError(
            f"The images of {data.origin} are {found} (height x width x channels) and the model takes {expected}; "
            "give images as the model was trained on."
        )
    if data.labels.min() < 0 or data.labels.max() >= spec.classes:
        raise InputError(
            f"The labels of {data.origin} run from {data.labels.min()} to {data.labels.max()} and the model has the "
            f"classes 0 to {spec.classes - 1}; number the classes as in the model's training."
        )


def _checked_trigger(request: Request, spec: ModelSpec, test: LabelledImages) -> Trigger | None:
    if request.trigger is None or request.target is None:
        return None
    if not 0 <= request.target < spec.classes:
        raise InputError(
            f"The target {request.target} is not a class of the model, which has the classes 0 to {spec.classes - 1}."
        )
    if bool(np.all(test.labels == request.target)):
        raise InputError(
            f"All images of {test.origin} are of the target class {request.target}; attack success is counted on "
            "images of other classes."
        )
    trigger = parse_trigger(request.trigger)
    try:
        shape = jax.eval_shape(trigger, jnp.zeros((1, *spec.image_shape))).shape
    except (TypeError, ValueError):
        shape = None
    if shape != (1, *spec.image_shape):
        raise InputError(
            f"The trigger {request.trigger} does not fit the model's images of "
            f"{'x'.join(map(str, spec.image_shape))} (height x width x channels)."
        )
    return trigger


def _check_folder(request: Request) -> None:
    out = request.out
    state, finished = (out / STATE_FILE).exists(), (out / REPORT_FILE).exists()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder with --out.")
    if request.resume and not state:
        found = "a finished run" if finished else "no interrupted run"
        raise InputError(f"{out} holds {found}, so there is nothing to resume; leave --resume away.")
    if not request.resume and not request.force and (state or finished):
        kind = "an interrupted" if state else "a finished"
        advice = "--resume to go on with it, or " if state else ""
        raise InputError(
            f"{out} holds {kind} run already; give {advice}--force to replace it, or another --out."
        )
    parent = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not parent.is_dir() or not _writable(parent):
        raise InputError(
            f"The output folder {out} cannot be written (no permission for {parent}); give another --out."
        )


def _writable(folder: Path) -> bool:
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / REPORT_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"The output folder {out} cannot be written ({error.strerror}); give another --out."
        ) from None


def _fingerprint(procedure: Procedure, request: Request, inputs: _Inputs) -> dict[str, Any]:
    """What must be equal for two runs to give the same bits, in the words of the command line."""
    return {
        "method": procedure.name,
        "checkpoint": inputs.checkpoint.sha256,
        "preset": request.preset,
        "config": json.loads(json.dumps(request.config.as_dict())),
        "seed": request.seed,
        "clean": {"spec": request.clean, "images": len(inputs.clean.labels), "sha256": _hash(inputs.clean)},
        "test": {"spec": request.test, "images": len(inputs.test.labels), "sha256": _hash(inputs.test)},
        "trigger": request.trigger,
        "target": request.target,
        "device": report.device(),
        "versions": report.versions(),
    }


def _hash(data: LabelledImages) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(data.images).data)
    digest.update(np.ascontiguousarray(data.labels).data)
    return digest.hexdigest()


def _check_same(now: dict[str, Any], earlier: dict[str, Any]) -> None:
    for name, value in now.items():
        if value != earlier.get(name):
            old, new = earlier.get(name), value
            if isinstance(value, dict) and isinstance(old, dict):
                part = next(key for key in value.keys() | old.keys() if value.get(key) != old.get(key))
                name, old, new = f"{name} ({part})", old.get(part), value.get(part)
            raise InputError(
                f"The interrupted run had {name} {old!r} and this one has {new!r}; resume with the same, or start "
                "anew with --force."
            )


def _evaluation_to(evaluation: Evaluation) -> dict[str, Any]:
    return {name: None if count is None else list(count) for name, count in evaluation._asdict().items()}


def _evaluation_from(entry: dict[str, Any]) -> Evaluation:
    counts = {name: entry[name] for name in Evaluation._fields}
    return Evaluation(**{name: None if c is None else Count(*c) for name, c in counts.items()})


def _evidence(inputs: _Inputs, variables: Variables, cleaned: Variables, delta: np.ndarray) -> dict[str, Any]:
    """Where the perturbation found on the model as it came sends images, before and after."""
    images = inputs.test.images
    shifted = functools.partial(
        predict, inputs.apply_fn, images=images, trigger=lambda x: x + jnp.asarray(delta)
    )
    clean, perturbed = predict(inputs.apply_fn, variables, images), shifted(variables)
    moved = perturbed[perturbed != clean]
    suspect = int(np.bincount(moved, minlength=1).argmax()) if len(moved) else None
    others = clean != suspect
    total = int(np.sum(others))
    before = float(np.mean(perturbed[others] == suspect)) if total else 0.0
    after = float(np.mean(shifted(cleaned)[others] == suspect)) if total else 0.0
    sentence = (
        f"evidence one perturbation for all images sent {100 * before:.1f} % of them to class {suspect}; "
        f"after unlearning {100 * after:.1f} %"
        if suspect is not None
        else "evidence no perturbation was found that moves images to one class"
    )
    return {"class": suspect, "share_before": before, "share_after": after, "sentence": sentence}


def _example(test: LabelledImages, target: int | None) -> int:
    """A picture to show: the first that is not of the target class."""
    return int(np.argmax(test.labels != target)) if target is not None else 0
