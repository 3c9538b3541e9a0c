"""Training from scratch as a long run in a folder: it shows its progress, and can be interrupted and gone on with."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from converters import convert, torch_io
from jaxunlearn import _checkpointing, _loop, finetune, report
from jaxunlearn._check import InputError, sides
from jaxunlearn._files import only_writer, write_together, write_whole
from jaxunlearn._typing import AnyImages, ApplyFn, Variables
from jaxunlearn.data import LabelledImages, Takes, check_class_names, classes_of, keep_apart, load
from jaxunlearn.display import Display, describe
from jaxunlearn.evaluate import Evaluation, Triggered, evaluate
from jaxunlearn.models import NAMES, ModelSpec, named

STATE = "training.state.npz"
MODEL, EARLY, FACTS = "trained.pth", "early.pth", "trained.json"

_EARLY_PART = 10  # of the epochs one, rounded up
_JUDGED_BY = 2000  # test images after every epoch; all of them at the end
_MOST_CLASSES = 100_000  # a number among the names of folders must not take all memory
_TRAINING = 0x74726169  # the number of no round, so that no method draws from the same keys


class Watch:
    """Seconds since the start, with those of an interrupted training that is gone on with."""

    def __init__(self) -> None:
        self._since, self.earlier = time.monotonic(), 0.0

    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self._since


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """What is to be trained.

    Attributes:
      spec: the network.
      config: how it is trained.
      test: images to judge by.
      triggered: images with an attack's trigger to judge by, where there is one.
      out: the folder.
      phase: which of several trainings of the folder it is.
      resume: whether to go on with an interrupted one.
      settings: what two equal trainings must have in common, for JSON.
      clear: removes what stands in the way of a training that starts anew.
      keep: is given the number of every finished epoch, and the variables after it.
    """

    spec: ModelSpec
    config: finetune.Config
    test: LabelledImages
    triggered: Triggered | None
    out: Path
    phase: str
    resume: bool
    settings: dict[str, Any]
    clear: Callable[[], None] = lambda: None
    keep: Callable[[int, Variables], None] = lambda epoch, variables: None


def train(
    training: Training,
    data_of: Callable[[int], _loop.Data],
    key: jax.Array,
    display: Display,
    watch: Watch,
) -> Variables:
    """Trains a fresh network on the set of every epoch (from 1), in a folder that is unfinished from then on.

    Raises:
      InputError: if the interrupted training was another one, or another run writes into the folder.
      NonFiniteError: if an epoch gives NaN or infinite values.
      KeyboardInterrupt: if interrupted; ``resume`` goes on after the last finished epoch.
    """
    path, triggered = training.out / f"{training.phase}.{STATE}", training.triggered
    same = training.settings | {
        "triggered": None if triggered is None else triggered.described(),
        "device": report.device(),
        "versions": report.versions(),
    }
    apply_fn: ApplyFn = training.spec.apply
    execution = _loop.Execution(on_batch=lambda done, total: display.advance(done / total))
    method = finetune.make_method(apply_fn, execution)
    init_key, training_key = jax.random.split(key)
    state = method.init(training.spec.init(init_key), data_of(1), training.config, training_key)
    first = 1
    if training.resume and path.exists():
        notes = _checkpointing.load_notes(path)
        try:
            earlier, epochs, watch.earlier = (
                dict(notes["same"]),
                int(notes["epochs"]),
                float(notes["seconds"]),
            )
        except (KeyError, TypeError, ValueError):
            raise _checkpointing.damaged(path) from None
        _checkpointing.check_same(same, earlier)
        state, first = _checkpointing.load_state(path, state), epochs + 1
        display.say(f"resumed  after epoch {epochs} on {training.phase} images")
    judging = training.test.take(slice(_JUDGED_BY))
    shown = None if triggered is None else Triggered(*(part[:_JUDGED_BY] for part in triggered))
    with only_writer(training.out):
        if first == 1:
            training.clear()
        display.start(training.config.rounds, first - 1)
        try:
            for epoch in range(first, training.config.rounds + 1):
                ((_, state, stats),) = _loop.rounds(method, state, data_of(epoch), epoch, epoch)
                variables = method.finish(state)
                now: Evaluation = evaluate(
                    apply_fn, variables, judging.images, judging.labels, triggered=shown
                )
                training.keep(epoch, variables)
                notes = {"same": same, "epochs": epoch, "seconds": watch.seconds()}
                _checkpointing.save_state(path, state, notes)
                display.round_done(epoch, {"loss": float(stats.loss)}, now)
        finally:
            display.stop()
    return method.finish(state)


def train_model(
    spec: ModelSpec,
    data: LabelledImages,
    test: LabelledImages,
    config: finetune.Config,
    *,
    seed: int,
    out: Path,
    resume: bool,
    display: Display,
    stale: Sequence[str] = (),
) -> Path:
    """Trains a network on a set as it is, and writes it as a PyTorch checkpoint; with ``resume``, unless it is there.

    What it was after a tenth of the epochs is written as well.

    ``stale`` are names of files in the folder that a training which starts anew removes.

    Returns:
      The path of the checkpoint, beside which ``trained.json`` tells how it was made.

    Raises:
      InputError: if what is there was made otherwise.
      NonFiniteError, KeyboardInterrupt: as ``train``.
    """
    settings = {
        "architecture": spec.name,
        "training": dataclasses.asdict(config),
        "seed": seed,
        "data": described(data),
        "test": described(test),
    }
    settings = json.loads(json.dumps(settings))
    facts = out / FACTS
    if resume and facts.exists():
        _checkpointing.check_same(settings, _read_facts(facts))
        return out / MODEL
    display.say(f"training {spec.name} on {len(data.labels)} images as they are ...")
    early_epoch = -(-config.rounds // _EARLY_PART)

    def keep(epoch: int, variables: Variables) -> None:
        if epoch == early_epoch:
            write_whole(out / EARLY, encoded(variables))

    def encoded(variables: Variables) -> bytes:
        arrays = convert.to_torch(spec, jax.tree.map(np.asarray, variables))
        return torch_io.new_state_dict_bytes(arrays)

    training = Training(
        spec=spec,
        config=config,
        test=test,
        triggered=None,
        out=out,
        phase="given",
        resume=resume,
        settings=settings,
        clear=lambda: _remove(out, (FACTS, EARLY, *stale)),
        keep=keep,
    )
    watch, given = Watch(), usable(data.images, data.labels)
    key = jax.random.fold_in(jax.random.key(seed), _TRAINING)
    variables = train(training, lambda _: given, key, display, watch)
    evaluation = evaluate(spec.apply, variables, test.images, test.labels)
    content = {
        **settings,
        "early_epoch": early_epoch,
        **report.rates_and_counts(evaluation),
        "seconds": round(watch.seconds(), 1),
        "device": report.device(),
        "versions": report.versions(),
    }
    facts_bytes = (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
    write_together(out, {MODEL: encoded(variables), FACTS: facts_bytes})
    (out / f"{training.phase}.{STATE}").unlink()
    display.say(f"trained  {describe(evaluation)}  {out / MODEL}")
    return out / MODEL


def _remove(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, RecursionError):
        raise _checkpointing.damaged(path) from None


def read_sets(
    data: str, test: str, architecture: str, *, size: int | None, leave_out: bool
) -> tuple[LabelledImages, LabelledImages, ModelSpec]:
    """Images to train on and images to judge by, named by SPECs, and a network for them.

    Args:
      data: SPEC of the images to train on.
      test: SPEC of those to judge by.
      architecture: one of ``NAMES``.
      size: height and width to bring pictures to; None leaves them as they are.
      leave_out: whether to train without images that also judge; else they are refused.

    Raises:
      InputError: if they cannot be read or do not fit one another.
    """
    takes = None if size is None else Takes((size, size, 1), classes=None)
    training, judging = load(data, takes), load(test, takes)
    check_class_names(data, test)
    if takes is not None and training.images.shape[1:3] != takes.shape[:2]:
        height, width = training.images.shape[1:3]
        raise InputError(
            f"--size {size} brings pictures to that size, and {training.origin} holds arrays of {height}x{width}; "
            "leave --size away."
        )
    spec = network(architecture, training, judging, classes=max(map(classes_of, (data, test))))
    return keep_apart(training, judging, leave_out=leave_out), judging, spec


def network(architecture: str, data: LabelledImages, test: LabelledImages, *, classes: int = 0) -> ModelSpec:
    """A network for images to train on and images to judge by, with as many classes as they have, or more.

    Raises:
      InputError: if a label is negative, there is no such architecture, or the images do not fit one another or it.
    """
    if architecture not in NAMES:
        raise InputError(f"{architecture} is no network that can be trained; there are {', '.join(NAMES)}.")
    if data.images.shape[1:] != test.images.shape[1:]:
        ours, theirs = (sides(some.images.shape[1:]) for some in (data, test))
        alike = data.images.shape[1:3] == test.images.shape[1:3]
        advice = (
            "give both as grey or both as coloured images"
            if alike
            else "bring both to one size with --size N"
        )
        raise InputError(
            f"The images of {data.origin} are {ours} and those of {test.origin} are {theirs}; {advice}."
        )
    if min(data.labels.min(), test.labels.min()) < 0:
        raise InputError(f"The labels of {data.origin} and {test.origin} must not be negative.")
    highest = int(max(data.labels.max(), test.labels.max()))
    classes = max(classes, highest + 1)
    if classes > _MOST_CLASSES:
        raise InputError(
            f"{data.origin} or {test.origin} has the class {classes - 1}, and so many classes would take all memory; "
            "number the classes 0, 1, ... instead."
        )
    spec = named(architecture, classes, tuple(data.images.shape[1:]))
    spec.shapes()  # refuses images that are too small
    return spec


def usable(images: AnyImages, labels: np.ndarray) -> _loop.Data:
    """The images where a loop wants them; sent there once."""
    return _loop.Data(images, labels).for_loop(_loop.Execution())


def described(data: LabelledImages) -> dict[str, Any]:
    """Where images come from, their number and a hash, for JSON."""
    return {"spec": data.origin, "images": len(data.labels), "sha256": data.sha256}
