"""Backdoored models made to test defences on, with everything that is known about them, as a folder of files.

``model.pth`` is an ordinary PyTorch checkpoint, ``train.npz`` what it was trained on, ``test.npz`` clean images to
judge by, ``triggered.npz`` the same with the trigger, ``attack.json`` every setting, and ``samples.png`` a look.
"""

import dataclasses
import functools
import io
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from converters import convert, torch_io
from jaxunlearn import _loop, finetune, report
from jaxunlearn._check import InputError
from jaxunlearn._files import check_output, write_together
from jaxunlearn._typing import Variables
from jaxunlearn.attacks import (
    Attack,
    Poisoned,
    Setting,
    Surrogate,
    as_bytes,
    check_fits,
    check_ratio,
    in_chunks,
    poison,
    rounded,
)
from jaxunlearn.attacks.recipes import Recipe
from jaxunlearn.data import LabelledImages, read_arrays
from jaxunlearn.display import Display, describe
from jaxunlearn.evaluate import Triggered, evaluate
from jaxunlearn.models import ModelSpec
from jaxunlearn.trainer import STATE, Training, Watch, described, train, usable

MODEL, ATTACK, TRAIN, TEST, TRIGGERED, SAMPLES = (
    "model.pth",
    "attack.json",
    "train.npz",
    "test.npz",
    "triggered.npz",
    "samples.png",
)
_FILES = (ATTACK, MODEL, TRAIN, TEST, TRIGGERED, SAMPLES)
_PHASES = ("clean", "poisoned")  # trainings in the order in which they are done

_SHOWN = 6
_FORMED = 0.5  # least attack success of a model that is of use
_SMALL_BATCH, _ITS_RATE = 32, 0.02  # four times as many steps as usual
_PLANTING = 0x706C616E  # the number of no round, so that no method draws from the same keys


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for.

    Attributes:
      name: of the attack.
      recipe: its settings.
      data: images to train on.
      test: images to judge by.
      spec: the network.
      target: the class to force.
      ratio: share of the images to poison.
      training: how the model is trained.
      seed: of every random choice.
      out: the folder.
      resume: whether to go on with an interrupted training in it.
      force: whether to replace what it holds.
    """

    name: str
    recipe: Recipe
    data: LabelledImages
    test: LabelledImages
    spec: ModelSpec
    target: int
    ratio: float
    training: finetune.Config
    seed: int
    out: Path
    resume: bool = False
    force: bool = False

    def settings(self) -> dict[str, Any]:
        """Everything that two equal models must have in common, for JSON."""
        return {
            "attack": self.name,
            "settings": dataclasses.asdict(self.recipe),  # type: ignore[call-overload]
            "target": self.target,
            "poison_ratio": self.ratio,
            "seed": self.seed,
            "architecture": self.spec.name,
            "training": dataclasses.asdict(self.training),
            "data": described(self.data),
            "test": described(self.test),
        }


def plant(order: Order, display: Display) -> dict[str, Any]:
    """Makes the attack, trains a model on what it poisons, and writes the folder; returns ``attack.json``.

    Raises:
      InputError: if the folder cannot be used or the attack cannot be made of these images.
      NonFiniteError: if training gives NaN or infinite values.
      KeyboardInterrupt: if interrupted; ``resume`` goes on after the last finished epoch.
    """
    try:
        return _made(order, display)
    finally:
        display.stop()


def _made(order: Order, display: Display) -> dict[str, Any]:
    watch = Watch()
    _check_folder(order)
    notices = [*dict.fromkeys((*order.data.notices, *order.test.notices))]
    for notice in notices:
        display.say(f"note     {notice}")
    settings = json.loads(json.dumps(order.settings()))
    test = dataclasses.replace(order.test, images=rounded(np.asarray(order.test.images)))
    order = dataclasses.replace(order, test=test)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(order.seed), _PLANTING), 4)
    images, labels = np.asarray(order.data.images), order.data.labels

    @functools.cache
    def surrogate() -> Surrogate:
        display.say(f"training on {len(labels)} clean images, for the attack to be made with ...")
        given = usable(order.data.images, labels)
        clean = train(_training(order, settings, "clean"), lambda _: given, keys[0], display, watch)
        return Surrogate(order.spec.apply, clean, images, labels)

    if order.recipe.needs_surrogate:
        planned = Attack(trigger=lambda x: x, target=order.target, clean_label=order.recipe.clean_label)
        check_ratio(planned, labels, order.ratio)
        check_others(test, order.target)
        if not np.any(labels == order.target):
            raise InputError(
                f"None of the {len(labels)} images to train on is of class {order.target}, for which the trigger is "
                "made; give another target or other images."
            )
    attack = order.recipe.make(
        Setting(
            order.spec.image_shape,
            order.spec.classes,
            order.target,
            keys[1],
            surrogate,
            lambda: (images, labels),
            functools.partial(display.work, "making the trigger"),
        )
    )
    check_fits(attack.trigger, order.spec.image_shape)
    triggered = show(attack, order.test)

    @functools.lru_cache(maxsize=1)
    def drawn(epoch: int | None) -> tuple[Poisoned, _loop.Data]:
        key = keys[2] if epoch is None else jax.random.fold_in(keys[2], epoch)
        found = poison(images, labels, attack, ratio=order.ratio, key=key)
        return found, usable(found.images, found.labels)

    def set_of(epoch: int) -> tuple[Poisoned, _loop.Data]:
        return drawn(epoch if attack.redrawn else None)

    poisoned, _ = set_of(order.training.rounds)
    display.say(
        f"training on {len(labels)} images, {int(poisoned.poisoned.sum())} of them poisoned and "
        f"{int(poisoned.covers.sum())} to cover up{', others in every epoch' if attack.redrawn else ''} ..."
    )
    warnings = [advice] if (advice := _missing_covers(attack, poisoned)) else []
    for warning in warnings:
        display.say(f"warning  {warning}")
    training = _training(order, settings, "poisoned", triggered)
    variables = train(training, lambda epoch: set_of(epoch)[1], keys[3], display, watch)
    evaluation = evaluate(
        order.spec.apply, variables, order.test.images, order.test.labels, triggered=triggered
    )
    if evaluation.asr is not None and evaluation.asr.rate < _FORMED:
        warnings.append(_advice(order.training))
    content = {
        **settings,
        "target": attack.target,
        "poisoned": np.flatnonzero(poisoned.poisoned).tolist(),
        "covers": np.flatnonzero(poisoned.covers).tolist(),
        "notices": notices,
        "warnings": warnings,
        **report.rates_and_counts(evaluation),
        "seconds": round(watch.seconds(), 1),
        "device": report.device(),
        "versions": report.versions(),
    }
    write_together(order.out, _files(order, attack, poisoned, triggered, variables, content))
    for path in order.out.glob(f"*{STATE}"):
        path.unlink()
    display.say(f"planted  {describe(evaluation)}")
    if evaluation.asr is not None and evaluation.asr.rate < _FORMED:
        display.say(f"warning  {warnings[-1]}")
    return content


def _missing_covers(attack: Attack, poisoned: Poisoned) -> str | None:
    """What to do if fewer images keep their labels than the attack asks for; None if there are as many."""
    asked = round(attack.covers * int(poisoned.poisoned.sum())) if attack.cover is not None else 0
    found = int(poisoned.covers.sum())
    if found >= asked:
        return None
    return (
        f"{asked} images to cover up are asked for and {found} are left beside the poisoned ones; give fewer (--set "
        "covers=NUMBER per poisoned image) or a smaller --poison-ratio."
    )


def _advice(training: finetune.Config) -> str:
    """What to do about a backdoor that did not form."""
    smaller = (
        f", in smaller batches (--train batch_size={_SMALL_BATCH} --train learning_rate={_ITS_RATE})"
        if training.batch_size > _SMALL_BATCH
        else ""
    )
    crops = (
        ", and without random crops, which cut corners off and move what is fixed to the frame (--train crop_padding=0)"
        if training.crop_padding
        else ""
    )
    return (
        "the backdoor hardly formed, and a model like this says little about a defence; train on more images, for more "
        f"epochs (--train rounds={2 * training.rounds}){smaller}{crops}."
    )


def show(attack: Attack, test: LabelledImages) -> Triggered:
    """The test images that an attack can be shown on, with its trigger, rounded to 8 bits.

    Raises:
      InputError: if there are none, or the trigger changes none of them.
    """
    if attack.target is not None:
        check_others(test, attack.target)
    rows = np.flatnonzero(attack.forced(test.labels) != test.labels)
    images = in_chunks(test.images, rows, lambda some, _: attack.trigger(some))
    if np.array_equal(images, in_chunks(test.images, rows, lambda some, _: some)):
        raise InputError(
            f"The trigger changes none of the {len(rows)} test images that it could be shown on, once they are rounded "
            "to 8 bits; give a stronger one or larger images."
        )
    labels = test.labels[rows]
    return Triggered(images / np.float32(255), labels, attack.forced(labels).astype(labels.dtype))


def check_others(test: LabelledImages, target: int) -> None:
    """Refuses test images that are all of the attack's class.

    Raises:
      InputError: if so.
    """
    if bool(np.all(test.labels == target)):
        raise InputError(
            f"All images of {test.origin} are of the target class {target}; attack success is counted on images of "
            "other classes."
        )


def read_triggered(folder: Path) -> Triggered:
    """The triggered test images of a folder that ``plant`` wrote.

    Raises:
      InputError: if they cannot be read or are of another form.
    """
    path = folder / TRIGGERED
    arrays = read_arrays(path)
    wanted = ("x", "y", "attack_labels")
    if isinstance(arrays, np.ndarray) or not set(wanted) <= set(arrays):
        raise InputError(f"{path} does not hold the arrays {', '.join(wanted)}; make the attack anew.")
    images, labels, attack_labels = (arrays[name] for name in wanted)
    shapes = images.ndim == 4 and labels.shape == attack_labels.shape == images.shape[:1]
    kinds = images.dtype == np.uint8 and labels.dtype.kind in "iu" and attack_labels.dtype.kind in "iu"
    if not shapes or not kinds or len(labels) == 0:
        raise InputError(
            f"{path} holds arrays of shapes {images.shape}, {labels.shape} and {attack_labels.shape}; expected uint8 "
            "images NHWC and an integer for each, twice."
        )
    return Triggered(images / np.float32(255), labels.astype(np.int32), attack_labels.astype(np.int32))


def _training(
    order: Order, settings: dict[str, Any], phase: str, triggered: Triggered | None = None
) -> Training:
    return Training(
        spec=order.spec,
        config=order.training,
        test=order.test,
        triggered=triggered,
        out=order.out,
        phase=phase,
        resume=order.resume,
        settings=settings,
        clear=functools.partial(_clear, order.out, phase),
    )


def _clear(folder: Path, phase: str) -> None:
    """Removes what followed a phase that starts anew in an earlier training."""
    states = (f"{later}.{STATE}" for later in _PHASES[_PHASES.index(phase) :])
    for name in (*states, *_FILES):
        (folder / name).unlink(missing_ok=True)


def _files(
    order: Order,
    attack: Attack,
    poisoned: Poisoned,
    triggered: Triggered,
    variables: Variables,
    content: dict[str, Any],
) -> dict[str, bytes]:
    test = order.test
    arrays = convert.to_torch(order.spec, jax.tree.map(np.asarray, variables))
    chosen = np.flatnonzero(attack.forced(test.labels) != test.labels)[:_SHOWN]
    clean = np.asarray(test.images[chosen])
    titles = [
        f"{label} > {forced}"
        for label, forced in zip(test.labels[chosen], attack.forced(test.labels[chosen]), strict=True)
    ]
    picture = report.draw_examples(
        clean,
        np.asarray(triggered.images[: len(chosen)]),
        titles,
        gain=5,
        names=("clean", "difference", "triggered"),
        heading=f"{order.name}: true class > attack's class",
    )
    return {
        MODEL: torch_io.new_state_dict_bytes(arrays),
        TRAIN: training_set(poisoned, order.data.labels),
        TEST: _npz(x=as_bytes(np.asarray(test.images)), y=test.labels),
        TRIGGERED: _npz(
            x=as_bytes(np.asarray(triggered.images)),
            y=np.asarray(triggered.labels),
            attack_labels=np.asarray(triggered.attack_labels),
        ),
        SAMPLES: picture,
        ATTACK: (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(),
    }


def training_set(poisoned: Poisoned, true_labels: np.ndarray) -> bytes:
    """A poisoned training set as an npz file: x, y, and what is known about them."""
    return _npz(
        x=as_bytes(poisoned.images),
        y=poisoned.labels,
        true_labels=true_labels,
        poisoned=poisoned.poisoned,
        covers=poisoned.covers,
    )


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def is_begun(folder: Path) -> bool:
    """Whether a folder holds an interrupted training."""
    return folder.is_dir() and any(folder.glob(f"*{STATE}"))


def _check_folder(order: Order) -> None:
    check_output(
        order.out,
        _FILES,
        begun=is_begun(order.out),
        finished=(order.out / ATTACK).exists(),
        resume=order.resume,
        force=order.force,
        activity="training",
        result="attack",
    )
