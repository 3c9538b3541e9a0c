"""One run from files to files: check everything, judge, unlearn, judge again, write."""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from converters import convert, torch_io
from jaxunlearn import _checkpointing, _loop, report
from jaxunlearn._check import InputError
from jaxunlearn._checkpointing import STATE_FILE
from jaxunlearn._files import only_writer, unwritable, write_together
from jaxunlearn._loop import Data, Execution, Method, NonFiniteError
from jaxunlearn._tree import all_finite
from jaxunlearn._typing import Variables
from jaxunlearn.display import Display, describe
from jaxunlearn.evaluate import Evaluation
from jaxunlearn.inputs import (
    CURVES_FILE,
    REPORT_FILE,
    Inputs,
    Request,
    check_finished,
    check_folder,
    files_of_any_run,
    files_written,
    judge_reactivated,
    model_files,
    read,
)

_MUCH_LOST = 10.0  # points of ACC


class Evidence(NamedTuple):
    """What a method has found out about the backdoor.

    Attributes:
      facts: for the report; ``sentence`` says them in words.
      files: what shows more of it, such as pictures, by name.
    """

    facts: Mapping[str, Any]
    files: Mapping[str, bytes]


class Procedure(NamedTuple):
    """What a run needs to know about a method.

    Attributes:
      name: of the method.
      make_method: from the inputs of a run and an Execution.
      losses: reads the named losses to show off a round's statistics.
      evidence: of the inputs, the variables before and after, and the last state.
      passes: the passes of a round over the data with their relative cost, for the progress display.
      first_stage: of a method for training sets that may be poisoned (``--train`` in place of ``--clean``): the rounds,
        by its settings, after which its first stage is over; None for methods that take clean images.
    """

    name: str
    make_method: Callable[[Inputs, Execution], Method]
    losses: Callable[[Any], dict[str, float]]
    evidence: Callable[[Inputs, Variables, Variables, Any], Evidence]
    passes: Callable[[Any], tuple[float, ...]]
    first_stage: Callable[[Any], int] | None = None


@dataclasses.dataclass
class _Journal:
    """What a run has done so far; with the method's state, all that an interrupted run needs to go on."""

    fingerprint: dict[str, Any]
    before: Evaluation
    rounds: list[dict[str, Any]]
    seconds: dict[str, float]

    @property
    def after(self) -> Evaluation:
        return Evaluation.from_counts(self.rounds[-1])

    def save(self, path: Path, state: Any) -> None:
        notes = {**vars(self), "before": self.before.counts()}
        _checkpointing.save_state(path, state, notes)

    @classmethod
    def load(cls, path: Path) -> "_Journal":
        """Reads what ``save`` wrote.

        Raises:
          InputError: if it is anything else.
        """
        notes = _checkpointing.load_notes(path)
        try:
            json.dumps([notes["rounds"], notes["seconds"]], allow_nan=False)
            for number, entry in enumerate(({"round": 0, **notes["before"]}, *notes["rounds"])):
                Evaluation.from_counts(entry).rates()
                if entry["round"] != number:
                    raise ValueError("its rounds are not in order")
            seconds = {name: float(notes["seconds"][name]) for name in _ACTIVITIES}
            before, rounds = Evaluation.from_counts(notes["before"]), list(notes["rounds"])
            return cls(dict(notes["fingerprint"]), before, rounds, seconds)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise _checkpointing.damaged(path) from None


class _Earlier(NamedTuple):
    """What a report tells of the model that the run has written.

    Attributes:
      model: the name of its file.
      normalization: of its inputs, as ``--normalize`` takes it.
      channels: their order.
    """

    model: str
    normalization: str
    channels: str

    @classmethod
    def read(cls, path: Path) -> "_Earlier":
        """Reads the report at ``path``.

        Raises:
          InputError: if it is not one that a run wrote.
        """
        try:
            content = json.loads(path.read_text())
            model, told = content["files"][0], content["preprocessing"]
            mean, std = (",".join(str(float(number)) for number in told[name]) for name in ("mean", "std"))
            channels = {"rgb": "rgb", "bgr": "bgr"}[told["channels"]]
            if model not in model_files(".pth"):
                raise ValueError("it names no model")
            return cls(model, f"{mean}/{std}", channels)
        except (LookupError, TypeError, ValueError, OverflowError, RecursionError):
            raise InputError(
                f"{path} is not the report of a finished run; run again with --force, or give another --out."
            ) from None


_ACTIVITIES = ("load", "compile", "unlearn", "evaluate")


class _Clock(contextlib.AbstractContextManager["_Clock"]):
    """Seconds by activity; compilation is told apart by listening to JAX until the end of the context."""

    def __init__(self, since: float) -> None:
        self.seconds = dict.fromkeys(_ACTIVITIES, 0.0)
        self._mark, self._compiled = since, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            self._compiled += duration_secs

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


class _Run(NamedTuple):
    """The parts of a run."""

    procedure: Procedure
    request: Request
    inputs: Inputs
    method: Method
    journal: _Journal
    clock: _Clock
    display: Display


def run(
    procedure: Procedure,
    request: Request,
    display: Display,
    loading_since: float,
    *,
    until: int | None = None,
) -> dict[str, Any] | None:
    """Runs a request and returns the report that it wrote.

    Args:
      procedure: the method.
      request: what was asked for.
      display: is told of the progress.
      loading_since: ``time.monotonic()`` of the program's start, to report the loading time.
      until: the round to stop after, as if interrupted, but with the evidence written; None is returned then.

    Raises:
      InputError: if an input cannot be used; nothing has been written then.
      NonFiniteError: if the first round already fails; of a later one the last good round is written.
      KeyboardInterrupt: if interrupted; ``resume`` goes on after the last finished round.
    """
    with _Clock(loading_since) as clock:
        return _run(procedure, request, display, clock, until)


def _run(
    procedure: Procedure, request: Request, display: Display, clock: _Clock, until: int | None
) -> dict[str, Any] | None:
    check_folder(request.out, (), resume=request.resume, force=request.force)
    inputs = read(request)
    written = files_written(procedure.name, inputs.checkpoint.suffix)
    _check_kept(request, written)
    check_folder(request.out, written, resume=request.resume, force=request.force)
    clock.lap("load")
    for notice in inputs.notices:
        display.say(f"note     {notice}")
    for warning in inputs.warnings:
        display.say(f"warning  {warning}")

    execution = Execution(on_batch=_Progress(display, procedure.passes(request.config)))
    method = procedure.make_method(inputs, execution)
    variables = jax.tree.map(jnp.asarray, inputs.model.variables)
    data = Data(inputs.clean.images, inputs.clean.labels).for_loop(execution)
    state = method.init(variables, data, request.config, jax.random.key(request.seed))
    fingerprint = _fingerprint(procedure, request, inputs)
    state_file = request.out / STATE_FILE
    if not request.resume:
        journal = _Journal(fingerprint, inputs.judge(variables), [], clock.seconds)
        clock.lap("evaluate")
    with only_writer(request.out):
        if request.resume:
            journal = _Journal.load(state_file)
            _checkpointing.check_same(fingerprint, journal.fingerprint)
            state = _checkpointing.load_state(state_file, state)
            if not all_finite(method.finish(state)):
                raise _checkpointing.damaged(state_file)
            clock.resume(journal.seconds)
            display.say(f"resumed  after round {len(journal.rounds)}")
        else:
            _clear(request, written)
            journal.save(state_file, state)
        journal.seconds = clock.seconds
        display.say(f"before   {describe(journal.before)}  ({journal.before.acc.total} images)")

        this = _Run(procedure, request, inputs, method, journal, clock, display)
        state, stopped = _unlearn(
            this, state, data, min(until or request.config.rounds, request.config.rounds)
        )
        if until is not None and until < request.config.rounds and stopped is None:
            evidence = procedure.evidence(inputs, variables, method.finish(state), state)
            write_together(request.out, evidence.files)
            display.say(f"evidence {evidence.facts['sentence']}")
            return None
        content = _write(this, variables, state, stopped)
        state_file.unlink()
    display.say(f"after    {describe(Evaluation.from_counts(content['after']['counts']))}")
    for warning in content["warnings"][len(inputs.warnings) :]:
        display.say(f"warning  {warning}")
    display.say(f"evidence {content['evidence']['sentence']}")
    return content


def judge(procedure: Procedure, request: Request, display: Display) -> None:
    """Says what the model that a finished run has written does.

    Raises:
      InputError: if there is none, or an input cannot be used.
    """
    report_file = request.out / REPORT_FILE
    check_finished(procedure.name, request.out)
    earlier = _Earlier.read(report_file)
    written = request.out / earlier.model
    if request.normalize is None:
        channels = request.channels or earlier.channels
        request = dataclasses.replace(request, normalize=earlier.normalization, channels=channels)
    inputs = read(dataclasses.replace(request, checkpoint=written))
    evaluation = inputs.judge(jax.tree.map(jnp.asarray, inputs.model.variables))
    display.say(f"{written}  {describe(evaluation)}  ({evaluation.acc.total} images)")


def _unlearn(this: _Run, state: Any, data: Data, last: int) -> tuple[Any, str | None]:
    """The rounds that are left up to ``last``, or until it is over; returns the state and, if one failed, why."""
    journal, state_file = this.journal, this.request.out / STATE_FILE
    first = len(journal.rounds) + 1
    if this.method.over(state):
        return state, None
    this.display.start(last, first - 1)
    try:
        for number, new_state, stats in _loop.rounds(this.method, state, data, first, last):
            state = new_state
            this.clock.lap("unlearn")
            evaluation = this.inputs.judge(this.method.finish(state))
            losses = this.procedure.losses(stats)
            journal.rounds.append({"round": number, **losses, **evaluation.counts()})
            this.clock.lap("evaluate")
            journal.save(state_file, state)
            this.display.round_done(number, losses, evaluation)
            if this.method.over(state):
                this.display.say(f"over     after round {number}, as its stopping rule says")
                break
    except NonFiniteError as error:
        if not journal.rounds:
            state_file.unlink(missing_ok=True)
            raise
        this.display.say(
            f"warning  {error} The model is written as it was after round {len(journal.rounds)}."
        )
        return state, str(error)
    finally:
        this.display.stop()
    return state, None


def _write(this: _Run, variables: Variables, state: Any, stopped: str | None) -> dict[str, Any]:
    """Writes everything into the output folder and returns the report, which is written last."""
    request, inputs, journal = this.request, this.inputs, this.journal
    finished = this.method.finish(state)
    arrays = convert.to_torch(
        inputs.model.spec, jax.tree.map(np.asarray, finished), like=inputs.checkpoint.arrays
    )
    cleaned, after = _as_written(this, arrays, finished)
    evidence = this.procedure.evidence(inputs, variables, cleaned, state)
    reactivation = _reactivate(this, cleaned)
    model_bytes = torch_io.encode(inputs.checkpoint, arrays)
    as_given, as_safetensors = model_files(inputs.checkpoint.suffix)
    files = {
        as_given: model_bytes,
        as_safetensors: torch_io.encode_safetensors(inputs.checkpoint, arrays),
        CURVES_FILE: report.draw_curves(journal.before, journal.rounds),
        **evidence.files,
    }
    this.clock.lap("evaluate")
    content = report.assemble(
        checkpoint=str(request.checkpoint),
        key=inputs.checkpoint.container_key,
        method=this.procedure.name,
        preset=request.preset,
        config=dataclasses.asdict(request.config),
        seed=request.seed,
        spec=inputs.model.spec,
        before=journal.before,
        after=after,
        rounds=journal.rounds,
        evidence=evidence.facts,
        reactivation=reactivation,
        inputs=journal.fingerprint,
        input_sha256=inputs.checkpoint.sha256,
        output_sha256=hashlib.sha256(model_bytes).hexdigest(),
        seconds=this.clock.seconds,
        preprocessing=inputs.preprocessing.as_dict(),
        notices=inputs.notices,
        warnings=[*inputs.warnings, *_losses_of_accuracy(journal.before, after)],
        stopped=stopped,
        files=[*files, REPORT_FILE],
    )
    encoded = (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
    write_together(request.out, {**files, REPORT_FILE: encoded})
    for name in files_written(this.procedure.name, inputs.checkpoint.suffix):
        if name not in content["files"]:  # of the division alone, which the end of the run has outdone
            (request.out / name).unlink(missing_ok=True)
    return content


def _losses_of_accuracy(before: Evaluation, after: Evaluation) -> list[str]:
    """A warning of a model that has lost much of what it knew."""
    lost = 100 * (before.acc.rate - after.acc.rate)
    if lost < _MUCH_LOST:
        return []
    return [
        f"the cleaned model has lost {lost:.0f} points of ACC; more images, fewer rounds (--rounds), a smaller "
        "learning rate (--set learning_rate=NUMBER) or another method may cost less."
    ]


def _as_written(
    this: _Run, arrays: Mapping[str, np.ndarray], cleaned: Variables
) -> tuple[Variables, Evaluation]:
    """The variables as a file holds them, which may be in less precision, and what they do.

    Raises:
      InputError: if numbers are too large for the file's precision.
    """
    written = jax.tree.map(jnp.asarray, convert.from_torch(arrays).variables)
    if all(map(np.array_equal, jax.tree.leaves(written), jax.tree.leaves(cleaned))):
        return cleaned, this.journal.after
    if not all_finite(written):
        raise InputError(
            f"The cleaned model has weights that are too large for the precision of {this.request.checkpoint}; convert "
            "that to float32 first, and clean the copy."
        )
    return written, this.inputs.judge(written)


def _reactivate(this: _Run, cleaned: Variables) -> list[dict[str, Any]]:
    """How much of the backdoor comes back with some triggered images."""
    entries = []
    for count in this.request.reactivate:
        evaluation = judge_reactivated(this.inputs, cleaned, count, this.request.seed)
        this.display.say(f"again    {describe(evaluation)}  (fine-tuned on {count} triggered images)")
        entries.append({"images": count, **report.rates_and_counts(evaluation)})
    return entries


def _check_kept(request: Request, written: Sequence[str]) -> None:
    """Refuses an output folder in which a file of the run would take the place of a given one."""
    places = {os.path.realpath(request.out / name): name for name in written}
    for given in (request.checkpoint, request.division, request.early):
        if given is not None and (name := places.get(os.path.realpath(given))):
            raise InputError(f"The run's {name} would replace {given}; give another folder with --out.")


def _clear(request: Request, written: Sequence[str]) -> None:
    """Removes the files of an earlier run, finished or not: a new one may end without any."""
    out = request.out
    try:
        unfinished = written if (out / STATE_FILE).exists() else ()
        for name in (*_files_of(out / REPORT_FILE), *unfinished):
            if os.path.realpath(out / name) != os.path.realpath(request.checkpoint):
                (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(out, error.strerror) from None


def _files_of(report_file: Path) -> list[str]:
    """The names of the files of the run that a report is of, itself first; whatever else it names is not ours."""
    try:
        named = {name for name in json.loads(report_file.read_text())["files"] if isinstance(name, str)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        named = set()
    return [report_file.name, *sorted((named & files_of_any_run()) - {report_file.name})]


def _fingerprint(procedure: Procedure, request: Request, inputs: Inputs) -> dict[str, Any]:
    """What must be equal for two runs to give the same bits, in the words of the command line."""
    triggered = inputs.triggered
    return {
        "method": procedure.name,
        "checkpoint": inputs.checkpoint.sha256,
        "key": request.key,
        "preset": request.preset,
        "config": json.loads(json.dumps(dataclasses.asdict(request.config))),
        "seed": request.seed,
        "clean": {
            "spec": request.clean,
            "images": len(inputs.clean.labels),
            "sha256": inputs.clean.sha256,
        },
        "test": {"spec": request.test, "images": len(inputs.test.labels), "sha256": inputs.test.sha256},
        "division": None if request.division is None else _described_division(request.division, inputs),
        "early": None
        if inputs.early is None
        else {"file": str(request.early), "sha256": inputs.early.sha256},
        "preprocessing": inputs.preprocessing.preprocessing.as_dict(),
        "trigger": request.trigger,
        "trigger on grey": _hash_trigger(inputs),
        "target": request.target,
        "triggered": None if triggered is None else triggered.described(),
        "device": report.device(),
        "versions": report.versions(),
    }


def _described_division(path: Path, inputs: Inputs) -> dict[str, str]:
    """The file, and a hash of what it says: somebody may correct it between two runs."""
    return {
        "file": str(path),
        "sha256": hashlib.sha256("\n".join(inputs.division or ()).encode()).hexdigest(),
    }


def _hash_trigger(inputs: Inputs) -> str | None:
    """Hash of a grey image with the trigger: its picture may change between two runs."""
    if inputs.trigger is None:
        return None
    grey = jnp.full((1, *inputs.model.spec.image_shape), 0.5)
    return hashlib.sha256(np.asarray(inputs.trigger(grey)).tobytes()).hexdigest()
