"""What a run starts from: read from files, checked, refused in one sentence.

Nothing is written before everything here has been checked.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from converters import convert, torch_io
from converters.backdoorbench import read_attack
from converters.convert import Converted
from converters.torch_io import Checkpoint
from jaxunlearn import subjects
from jaxunlearn._check import InputError, shown, sides
from jaxunlearn._checkpointing import STATE_FILE
from jaxunlearn._files import check_output
from jaxunlearn._tree import named_leaves
from jaxunlearn._typing import ApplyFn, Variables
from jaxunlearn.attacks import Trigger, fits, parse_trigger, pictures_of
from jaxunlearn.data import (
    LabelledImages,
    Takes,
    check_class_names,
    hold_out,
    keep_apart,
    load,
    read_division,
    read_image,
)
from jaxunlearn.evaluate import Evaluation, Triggered, evaluate
from jaxunlearn.models import ModelSpec
from jaxunlearn.pixels import parse_normalization
from jaxunlearn.preprocessing import Choice, choose_preprocessing
from jaxunlearn.reactivation import Shown, reactivate

REPORT_FILE = "report.json"
CURVES_FILE = "curves.png"
ATTACK = "attack:"

_EVIDENCE_FILES = {
    "ibau": ("perturbation.png",),
    "sau": ("perturbation.png",),
    "ulrl": ("scores.png",),
    "dau": ("division.png", "division.csv", "division.json", "poisoned.png", "groups.png"),
}

_FEWEST_TO_CLEAN = 10
_FEWEST_TO_JUDGE = 10
_CLEAN_TO_REACTIVATE = 100  # test images that keep their classes meanwhile, not judged by
_HELD_OUT_SHARE = 0.2
_MOST_HELD_OUT = 2000
_IMPLAUSIBLE = (
    "the model gets less than half of the clean images right, or hardly more than always answering the commonest "
    "class would; check the normalisation (--normalize, --channels), the numbering of the classes and the images, "
    "because nothing can be unlearned or measured with inputs that the model cannot read."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for.

    Attributes:
      checkpoint: path of the checkpoint.
      key: of the state dict in its dictionary; None where that is clear.
      clean: source of the images to unlearn with.
      test: source of the images to judge by; None holds some of ``clean`` back. ``attack:FILE`` is the same
        as None with that trigger.
      trigger: of the attack, where known; only to measure. ``attack:FILE`` names triggered images.
      target: of the attack, where known.
      preset: name of the preset that ``config`` started from.
      config: of the method.
      seed: of every random choice.
      out: the output folder.
      resume: go on with an interrupted run.
      force: overwrite an earlier run.
      normalize: how the network's inputs were normalised; None finds out.
      channels: ``rgb`` or ``bgr``; None finds out, or is ``rgb`` where ``normalize`` is given.
      size: height and width of the images, for models that take any; None takes theirs.
      leave_out_shared: whether to clean without the images that also judge; else they are refused.
      reactivate: numbers of triggered images to try to bring the backdoor back with.
      division: a table that says which of the images to unlearn with are poisoned; None where the method finds out.
      early: a checkpoint from early in the model's training, with the same key; None where there is none.
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
    key: str | None = None
    normalize: str | None = None
    channels: str | None = None
    size: int | None = None
    leave_out_shared: bool = False
    reactivate: tuple[int, ...] = ()
    division: Path | None = None
    early: Path | None = None


class Early(NamedTuple):
    """What a checkpoint from early in the model's training holds: its hash, and the variables."""

    sha256: str
    variables: Variables


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Everything read and checked.

    Attributes:
      checkpoint: the file.
      model: what it holds.
      clean: images to unlearn with.
      test: images to judge by.
      trigger: the attack, where known.
      target: its class, where known.
      triggered: images that carry the attack's trigger, where such are given.
      preprocessing: how the network's inputs were normalised, and what speaks for it.
      notices: what the user should know about the inputs.
      warnings: what makes the results doubtful.
      division: the given part of every image to unlearn with; None where it is not given.
      early: the model early in its training, where a checkpoint of that is given.
    """

    checkpoint: Checkpoint
    model: Converted
    clean: LabelledImages
    test: LabelledImages
    trigger: Trigger | None
    target: int | None
    triggered: Triggered | None
    preprocessing: Choice
    notices: list[str]
    warnings: list[str]
    division: list[str] | None = None
    early: Early | None = None

    @property
    def apply_fn(self) -> ApplyFn:
        """The network, of pixels in [0, 1]."""
        return self.preprocessing.preprocessing.before(self.model.spec.apply)

    def judge(self, variables: Variables) -> Evaluation:
        """What a model of this architecture does on the test images."""
        return evaluate(
            self.apply_fn,
            variables,
            self.test.images,
            self.test.labels,
            trigger=self.trigger,
            target=self.target,
            triggered=self.triggered,
        )


def judge_reactivated(inputs: Inputs, variables: Variables, count: int, seed: int) -> Evaluation:
    """What a model does once it has been fine-tuned on some of the triggered images; judged by others.

    ACC leaves out the clean images among which they were shown, too; with the trigger none of those was seen.
    """
    rng = np.random.default_rng(seed)
    used, kept = np.split(rng.permutation(_fooling(inputs)), [count])
    everything = np.arange(len(inputs.test.labels))
    if inputs.triggered is not None:
        given, kept = inputs.triggered, np.sort(kept)
        triggered = Shown(given.images[used], given.attack_labels[used])
        others, unseen = (
            Triggered(given.images[kept], given.labels[kept], given.attack_labels[kept]),
            everything,
        )
    elif inputs.trigger is not None and inputs.target is not None:
        triggered = Shown(
            inputs.trigger(jnp.asarray(inputs.test.images[used])), np.full(count, inputs.target)
        )
        others, unseen = None, np.delete(everything, used)
    else:
        raise ValueError("inputs.trigger is unknown; nothing can be reactivated.")
    held = rng.choice(unseen, min(_CLEAN_TO_REACTIVATE, len(unseen) // 2), replace=False)
    clean = Shown(inputs.test.images[held], inputs.test.labels[held])
    after = reactivate(inputs.apply_fn, variables, triggered, clean)
    rest, attackable = (inputs.test.take(rows) for rows in (np.setdiff1d(unseen, held), unseen))
    attacked = evaluate(
        inputs.apply_fn,
        after,
        attackable.images,
        attackable.labels,
        trigger=inputs.trigger,
        target=inputs.target,
        triggered=others,
    )
    return attacked._replace(acc=evaluate(inputs.apply_fn, after, rest.images, rest.labels).acc)


def _fooling(inputs: Inputs) -> np.ndarray:
    """The rows of images that are not of the class that the attack forces on them."""
    if inputs.triggered is not None:
        return np.flatnonzero(inputs.triggered.labels != inputs.triggered.attack_labels)
    return np.flatnonzero(inputs.test.labels != inputs.target)


def _check_reactivation(request: Request, inputs: Inputs) -> None:
    if not request.reactivate:
        return
    if inputs.triggered is None and inputs.trigger is None:
        raise InputError("--reactivate needs the attack; give --trigger with --target, or leave it away.")
    most, fooling = max(request.reactivate), len(_fooling(inputs))
    if most + _FEWEST_TO_JUDGE > fooling:
        raise InputError(
            f"--reactivate {most} leaves too few of the {fooling} images of other classes than the attack's to judge "
            f"by; at least {_FEWEST_TO_JUDGE} must be left."
        )


def read(request: Request) -> Inputs:
    """Reads the files that a request names and checks that they fit each other.

    Raises:
      InputError: if one cannot be used.
    """
    attack = _attack_file(request)
    if attack is not None and request.test == f"{ATTACK}{attack}":
        request = dataclasses.replace(request, test=None)
    checkpoint = torch_io.read(request.checkpoint, request.key)
    model = convert.from_torch(checkpoint.arrays)
    _check_weights(request.checkpoint, model)
    early = None if request.early is None else _read_early(request.early, request.key, model.spec)
    takes = _takes(request, model.spec)
    clean = load(request.clean, takes)
    if takes.keeps(*clean.images.shape[1:3]):
        takes = Takes((*clean.images.shape[1:3], takes.shape[2]), takes.classes)
    model = model._replace(spec=dataclasses.replace(model.spec, image_shape=takes.shape))
    _check_images(clean, model.spec)
    if request.test is None:
        given = clean
        clean, test = hold_out(given, share=_HELD_OUT_SHARE, most=_MOST_HELD_OUT, seed=request.seed)
        _check_held_back(given, test)
        test = _described_as_held_back(test)
    else:
        test = load(request.test, takes)
        check_class_names(request.clean, request.test)
        _check_images(test, model.spec)
    for judged in (test, *_originals(attack, request.test, takes)):
        clean = keep_apart(clean, judged, leave_out=request.leave_out_shared)
    check_enough(clean, test)
    division = None if request.division is None else read_division(request.division, clean)
    notices = list(dict.fromkeys([*checkpoint.notices, *_left(checkpoint), *clean.notices, *test.notices]))
    trigger = checked_trigger(request.trigger, request.target, model.spec, test)
    triggered = None if attack is None else _triggered(attack, model.spec)
    if trigger is None and triggered is None:
        notices.append("no trigger was given, so the attack success rate is unknown.")
    if attack is not None and not attack.is_dir():
        notices.append(
            f"{attack} does not hold the images under its triggers; make sure that they are not among those to clean "
            "with."
        )
    preprocessing = _preprocessing(request, model, clean)
    notices.append(preprocessing.describe())
    warnings = [_IMPLAUSIBLE] if preprocessing.implausible else []
    inputs = Inputs(
        checkpoint,
        model,
        clean,
        test,
        trigger,
        request.target,
        triggered,
        preprocessing,
        notices,
        warnings,
        division,
        early,
    )
    _check_reactivation(request, inputs)
    return inputs


def _read_early(path: Path, key: str | None, spec: ModelSpec) -> Early:
    """A checkpoint from early in the training of the network that ``spec`` describes.

    Raises:
      InputError: if it is of another network, or cannot be read.
    """
    checkpoint = torch_io.read(path, key)
    early = convert.from_torch(checkpoint.arrays)
    _check_weights(path, early)
    if early.spec != spec:
        raise InputError(
            f"{path} holds a {early.spec.name} of {early.spec.classes} classes, and the model is a {spec.name} of "
            f"{spec.classes}; give a checkpoint of the same training."
        )
    return Early(checkpoint.sha256, early.variables)


def check_enough(clean: LabelledImages, test: LabelledImages) -> None:
    """Whether there are enough images to clean with and to judge by.

    Raises:
      InputError: if there are fewer than ten of either, or those to clean with are all of one class.
    """
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


def _left(checkpoint: Checkpoint) -> tuple[str, ...]:
    """A notice of the other state dicts of a file, if it has any."""
    if checkpoint.container_key is None:
        return ()
    others = {key: entry for key, entry in checkpoint.content.items() if key != checkpoint.container_key}
    names = list(_state_dicts(others, "", set()))
    if not names:
        return ()
    listed = ", ".join(names[:8] + ["..."] * (len(names) > 8))
    return (
        f"of the file's state dicts only {checkpoint.container_key} is cleaned; the others ({listed}) stay as they are "
        "in the written file, and still carry whatever they carried.",
    )


def _state_dicts(entries: Mapping[Any, Any], prefix: str, seen: set[int]) -> Iterator[str]:
    """The names of the state dicts among nested entries; an optimizer's buffers have names without a dot."""
    seen.add(id(entries))
    for key, entry in entries.items():
        name = f"{prefix}{shown(key, 40)}"
        if not isinstance(entry, dict):
            continue
        if any("." in str(inner) and hasattr(value, "is_floating_point") for inner, value in entry.items()):
            yield name
        elif id(entry) not in seen:
            yield from _state_dicts(entry, f"{name}.", seen)


def _attack_file(request: Request) -> Path | None:
    """The file whose triggered images measure the attack, if one is named."""
    named = {text for text in (request.test, request.trigger) if text is not None and text.startswith(ATTACK)}
    if not named:
        return None
    if (
        len(named) > 1
        or request.target is not None
        or not (request.trigger is None or request.trigger in named)
    ):
        raise InputError(
            "attack:FILE (and --attack DIR) brings its own images and classes; give it once, without another trigger "
            "and a target."
        )
    return Path(named.pop().removeprefix(ATTACK))


def _originals(attack: Path | None, test: str | None, takes: Takes) -> list[LabelledImages]:
    """The images under the triggers, where a folder holds them and ``test`` does not name them already."""
    if attack is None or not attack.is_dir() or test == (spec := f"npz:{attack / subjects.TEST}"):
        return []
    return [load(spec, takes)]


def _triggered(path: Path, spec: ModelSpec) -> Triggered:
    """The triggered images that an attack's folder holds or its file names, for this network."""
    triggered = _planted(path, spec) if path.is_dir() else _listed(path, spec)
    if bool(np.all(triggered.labels == triggered.attack_labels)):
        raise InputError(
            f"{path} has only images of the class that the attack forces; nothing can be measured, so give images of "
            "other classes, or no trigger."
        )
    return triggered


def _listed(path: Path, spec: ModelSpec) -> Triggered:
    """The triggered images that a BackdoorBench file names."""
    attack = read_attack(path)
    labels = np.array([image.label for image in attack.images], np.int32)
    attack_labels = np.array([image.attack_label for image in attack.images], np.int32)
    pictures = [_fitted(image.path, spec) for image in attack.images]
    rows = np.arange(len(labels))
    data = LabelledImages(
        np.stack(pictures), labels, str(path), rows, lambda row: str(attack.images[row].path)
    )
    _check_images(data, spec)
    _check_images(dataclasses.replace(data, labels=attack_labels), spec)
    return Triggered(data.images, labels, attack_labels)


def _planted(folder: Path, spec: ModelSpec) -> Triggered:
    """The triggered images of a folder that ``python -m jaxunlearn.attacks`` made."""
    triggered = subjects.read_triggered(folder)
    images = np.asarray(triggered.images)
    for labels in (triggered.labels, triggered.attack_labels):
        rows = np.arange(len(images))
        name = f"{folder / subjects.TRIGGERED}"
        _check_images(
            LabelledImages(
                images, np.asarray(labels), name, rows, functools.partial("{} row {}".format, name)
            ),
            spec,
        )
    return triggered


def _fitted(path: Path, spec: ModelSpec) -> np.ndarray:
    picture = read_image(path)
    if picture.shape != spec.image_shape:
        raise InputError(
            f"The picture {path} is {sides(picture.shape)} (height x width x channels) and the model takes "
            f"{sides(spec.image_shape)}."
        )
    return picture


def _takes(request: Request, spec: ModelSpec) -> Takes:
    """What images must fit: the model, and the size that the user asked for."""
    if request.size is None:
        return Takes(spec.image_shape, spec.classes, keeps=spec.fits)
    if not spec.fits(request.size, request.size):
        height, width, _ = spec.image_shape
        raise InputError(
            f"The model takes images of {height}x{width} only; leave --size {request.size} away."
        )
    return Takes((request.size, request.size, spec.image_shape[2]), spec.classes)


def _check_held_back(given: LabelledImages, test: LabelledImages) -> None:
    """Refuses clean images of which too few can be held back."""
    held, needed = len(test.labels), math.ceil((_FEWEST_TO_JUDGE - 0.5) / _HELD_OUT_SHARE)
    if held < _FEWEST_TO_JUDGE:
        raise InputError(
            f"Without --test a fifth of the clean images is held back to judge by, {held} of the {len(given.labels)} "
            f"of {given.origin}, and at least {_FEWEST_TO_JUDGE} are needed; give {needed} different ones or more, or "
            "others with --test."
        )


def _described_as_held_back(test: LabelledImages) -> LabelledImages:
    count = len(test.labels)
    notice = (
        f"no test images were given, so {count} of the clean images are held back to judge by; a rate from {count} "
        f"images is known to about +-{50 / max(1, count) ** 0.5:.0f} points."
    )
    origin = f"{count} images held back from {test.origin}"
    return dataclasses.replace(test, origin=origin, notices=(*test.notices, notice))


def _check_weights(path: Path, model: Converted) -> None:
    """Refuses whole numbers, which would cut off what is learned."""
    for name, leaf in named_leaves(model.variables).items():
        if leaf.dtype.kind in "iub":
            raise InputError(
                f"{name} of {path} is {leaf.dtype}, and weights have to be floating-point numbers to be trained; "
                "save the network in single precision."
            )


def _preprocessing(request: Request, model: Converted, clean: LabelledImages) -> Choice:
    """The preprocessing that the user gave, or that the clean images tell."""
    known = None if request.normalize is None else parse_normalization(request.normalize)
    channels = model.spec.image_shape[-1]
    if known is not None and len(known.mean) not in (1, channels):
        raise InputError(
            f"The normalisation {known.name} is one of {len(known.mean)} channels and the model takes images of "
            f"{channels}; give one number each, such as 0.5/0.5, or leave --normalize away."
        )
    if request.channels == "bgr" and channels != 3:
        raise InputError(f"The model takes images of {channels} channels; leave --channels bgr away.")
    bgr = None if request.channels is None else request.channels == "bgr"
    variables = jax.tree.map(jnp.asarray, model.variables)
    return choose_preprocessing(
        model.spec.apply, variables, clean.images, clean.labels, normalization=known, bgr=bgr
    )


def _check_images(data: LabelledImages, spec: ModelSpec) -> None:
    if data.images.shape[1:] != spec.image_shape:
        raise InputError(
            f"The images of {data.origin} are {sides(data.images.shape[1:])} (height x width x channels) and the "
            f"model takes {sides(spec.image_shape)}; give images as the model was trained on."
        )
    if data.labels.min() < 0 or data.labels.max() >= spec.classes:
        raise InputError(
            f"The labels of {data.origin} run from {data.labels.min()} to {data.labels.max()} and the model has the "
            f"classes 0 to {spec.classes - 1}; number the classes as in the model's training."
        )


def checked_trigger(
    text: str | None, target: int | None, spec: ModelSpec, test: LabelledImages
) -> Trigger | None:
    """The trigger that a text names; None without a text or a target.

    Raises:
      InputError: if the text names none that fits the network's images, or the target is no class to be judged.
    """
    if text is None or target is None:
        return None
    if not 0 <= target < spec.classes:
        raise InputError(
            f"The target {target} is not a class of the model, which has the classes 0 to {spec.classes - 1}."
        )
    subjects.check_others(test, target)
    trigger = parse_trigger(text)
    if not fits(trigger, spec.image_shape):
        sizes = "".join(f", and {file} is {sides(read_image(file).shape)}" for file in pictures_of(text))
        raise InputError(
            f"The trigger {text} does not fit the model's images of {sides(spec.image_shape)} (height x width x "
            f"channels){sizes}; give one that does."
        )
    return trigger


def model_files(suffix: str) -> tuple[str, str]:
    """The names of the cleaned model as it came, and for those who load no pickles."""
    return f"model{suffix}", "model.safetensors"


def files_written(method: str, suffix: str) -> list[str]:
    """The names of the files that a run of a method may leave behind, the report last."""
    names = (*model_files(suffix), CURVES_FILE, *_EVIDENCE_FILES.get(method, ()), REPORT_FILE)
    return list(dict.fromkeys(names))


def files_of_any_run() -> set[str]:
    """The names of the files that a run of any method may leave behind."""
    return {name for method in _EVIDENCE_FILES for name in files_written(method, ".pth")}


def check_finished(method: str, out: Path) -> None:
    """Refuses a folder without the report of a finished run.

    Raises:
      InputError: if there is none.
    """
    if not (out / REPORT_FILE).is_file():
        raise InputError(f"{out} holds no finished run of {method}; run it, or give another --out.")


def check_folder(out: Path, written: Sequence[str], *, resume: bool, force: bool) -> None:
    """Refuses an output folder that cannot be written or holds a run already, or files under the same names.

    Args:
      out: the folder.
      written: names of the files that the run will write.
      resume: go on with an interrupted run, which may have written some of them.
      force: replace them.

    Raises:
      InputError: if so, or if there is nothing to resume.
    """
    begun, finished = (out / STATE_FILE).exists(), (out / REPORT_FILE).exists()
    check_output(out, written, begun=begun, finished=finished, resume=resume, force=force)
