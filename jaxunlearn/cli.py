"""The command line that all methods share."""

import argparse
import dataclasses
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxunlearn._check import InputError
from jaxunlearn._checkpointing import STATE_FILE
from jaxunlearn._files import print_any_name, remove_empty
from jaxunlearn._signals import INTERRUPTED, ignore, interruptible

SUBTASKS = ("anti-learning", "unlearning", "test")

_DEMO_NAME = "demo"
_TRAINED = "trained.json"  # trainer.FACTS, which is imported late


def main(
    procedure: Any, presets: Mapping[str, Any], description: str, argv: Sequence[str] | None = None
) -> int:
    """Parses the flags, runs, and returns the exit code.

    0 done, 1 stopped by NaN or infinity (the last good round, if any, is written), 2 something given cannot be
    used, 130 interrupted.

    Args:
      procedure: the method (``jaxunlearn.job.Procedure``).
      presets: its named configs, with one called ``default``.
      description: one sentence on the method.
      argv: the arguments; those of the process if None.
    """
    started = time.monotonic()
    trains = procedure.first_stage is not None
    parser = _parser(procedure.name, presets, description, trains=trains)
    given = sys.argv[1:] if argv is None else argv
    if trains and any(text == "--clean" or text.startswith("--clean=") for text in given):
        parser.error(
            f"{procedure.name} takes --train, the images that the model was trained on, and no --clean"
        )
    flags = parser.parse_args(given)
    out = flags.out or Path(f"{_subject(flags)}-{procedure.name}")

    def work() -> int:
        _check_subtask(flags, out)
        return (_demo if flags.demo else _clean)(procedure, presets, flags, out, started)

    trained = [_TRAINED] if flags.arch is not None and flags.subtask != "test" else []
    return guarded(work, out, f"*{STATE_FILE}", *trained)


def _subject(flags: argparse.Namespace) -> str:
    """What the file or folder to be cleaned is called, where it is meant by a dot, too."""
    if flags.demo:
        return _DEMO_NAME
    if flags.attack is not None:
        return Path(os.path.realpath(flags.attack)).name
    if flags.ckpt is not None:
        return str(flags.ckpt.stem if flags.ckpt.stem.strip(".") else Path(os.path.realpath(flags.ckpt)).stem)
    return str(flags.arch or _DEMO_NAME)


def _check_subtask(flags: argparse.Namespace, out: Path) -> None:
    """Refuses flags that a part of the work cannot use."""
    if flags.subtask == "unlearning":
        if flags.force:
            raise InputError(
                "unlearning goes on with a division, which --force would replace; leave --force away."
            )
        if not (out / STATE_FILE).is_file():
            raise InputError(
                f"{out} holds no division; run the subtask anti-learning with the same --out first."
            )
    if flags.division is not None and flags.subtask is not None:
        advice = {
            "anti-learning": "which anti-learning looks for; leave one of them away.",
            "unlearning": "and unlearning goes on with that in the output folder; leave the subtask away and give "
            "another --out.",
            "test": "which test does not need; leave it away.",
        }
        raise InputError(f"--division brings a division, {advice[flags.subtask]}")
    if flags.reactivate and flags.subtask in ("anti-learning", "test"):
        raise InputError(
            f"--reactivate needs a cleaned model, which {flags.subtask} does not make; leave it away."
        )


def guarded(work: Callable[[], int], out: Path, *kept: str) -> int:
    """The exit code of a program's work, whose errors are said in one sentence.

    Args:
      work: what is to be done.
      out: the folder of results.
      kept: patterns of the files in it that an interrupted run goes on from.
    """
    print_any_name()
    with interruptible():
        return _guarded(work, out, kept)


def _guarded(work: Callable[[], int], out: Path, kept: Sequence[str]) -> int:
    try:
        return work()
    except InputError as error:
        _say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        ignore()
        nothing = " there is nothing to go on from." if _is_folder(out) else " nothing was written."
        _say(f"interrupted:{_kept(out, kept) or nothing}")
        return INTERRUPTED
    except OSError as error:
        said = f"{error.filename or out} cannot be read or written ({error.strerror})."
        if isinstance(error, BrokenPipeError):
            sys.stdout = None  # else Python complains once more when it ends
            said = "nobody reads what is printed any more; give --quiet."
        _say(f"error: {said}{_kept(out, kept)}")
        return 2
    except (MemoryError, RuntimeError) as error:
        if re.search("Unable to initialize backend", str(error)):
            said = f"JAX cannot use the device that JAX_PLATFORMS names ({str(error).splitlines()[0]})."
        elif isinstance(error, MemoryError) or re.search("RESOURCE_EXHAUSTED|Out of memory", str(error)):
            said = "memory ran out; give fewer or smaller images, or smaller settings, such as batch_size."
        else:
            raise
        _say(f"error: {said}{_kept(out, kept)}")
        return 2
    except ArithmeticError as error:
        from jaxunlearn._loop import NonFiniteError

        if not isinstance(error, NonFiniteError):
            raise
        _say(f"stopped: {error}")
        return 1


def _say(text: str) -> None:
    """A line on standard error, where the program was started with one."""
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")


def _kept(out: Path, patterns: Sequence[str]) -> str:
    """Says what an ended run can go on from, if it can."""
    kept = _is_folder(out) and any(any(out.glob(pattern)) for pattern in patterns)
    return f" the finished rounds are kept in {out}; go on with --resume." if kept else ""


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # such as of a name that is too long
        return False


def seed(text: str) -> int:
    """The seed that an argument names, 0 to 2^32 - 1."""
    return _whole_number(text, 0, 2**32 - 1)


def positive(text: str) -> int:
    """The whole number from 1 on that an argument names."""
    return _whole_number(text, 1, 2**31 - 1)


def path(text: str) -> Path:
    """The path that an argument names; an empty one, as of a variable that is not set, would be this folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; give a name, or . for this folder")
    return Path(text)


def _whole_number(text: str, least: int, most: int) -> int:
    if not text.removeprefix("-").isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)


def _parser(
    name: str, presets: Mapping[str, Any], description: str, *, trains: bool
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m jaxunlearn.{name}",
        description=description,
        epilog="SPEC: digits, folder:DIR[,classes=FILE] (one sub-folder per class; FILE: one class name a line, or "
        "JSON of names with numbers), npz:FILE (arrays x uint8 NHWC and y), parquet:FILE (Hugging Face image layout; "
        "also a folder of shards or a pattern), tfds:NAME[:SPLIT] (also the folder of a prepared data set); each may "
        "end in a slice such as [:5000]. "
        "TRIGGER: patch:size=4,offset=1,value=1 (a square that far from the lower right corner) or "
        "image:FILE[,mask=FILE] (pixels under the mask blanked, image added, clipped to [0, 1]) or attack:FILE "
        "(the triggered images that BackdoorBench's attack_result.pt names; without --target"
        f"{'' if trains else '; also for --test'}). "
        f"Settings (--set), as the preset default has them: {settings_of(presets['default'])}.",
    )
    parser.add_argument(
        "--demo", action="store_true", help="train, attack and clean a small network; needs no files"
    )
    parser.add_argument("--ckpt", type=path, metavar="FILE", help="the PyTorch checkpoint to clean")
    parser.add_argument(
        "--attack",
        type=path,
        metavar="DIR",
        help=f"in place of --ckpt,{' --train,' if trains else ''} --test and --trigger: a folder that python -m "
        "jaxunlearn.attacks made",
    )
    parser.add_argument("--key", metavar="NAME", help="which of the checkpoint's state dicts to clean")
    if trains:
        parser.add_argument(
            "subtask",
            nargs="?",
            choices=SUBTASKS,
            metavar="SUBTASK",
            help="anti-learning: only divide the training images (division.json has what was found); unlearning: go on "
            "from there; test: only judge what DIR holds (else all of it)",
        )
        parser.add_argument(
            "--train", dest="clean", metavar="SPEC", help="the images that the model was trained on"
        )
        parser.add_argument("--test", metavar="SPEC", help="clean images to judge by")
        parser.add_argument(
            "--arch",
            metavar="ARCH",
            help="in place of --ckpt: train this network on the images of --train first, such as small_vgg (python -m "
            "jaxunlearn.attacks --help lists them)",
        )
        parser.add_argument(
            "--fit",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="a setting of that training, such as rounds=30 or flip=true; repeatable",
        )
        parser.add_argument(
            "--division",
            type=path,
            metavar="FILE",
            help="unlearn by this division of the images of --train in place of looking for one: a division.csv of an "
            "earlier run, which may have been corrected by hand",
        )
        parser.add_argument(
            "--early",
            type=path,
            metavar="FILE",
            help="a checkpoint from early in the model's training, after a tenth of it or so; what it has learned "
            "already is suspected first (prefilter=early)",
        )
    else:
        parser.set_defaults(subtask=None, arch=None, fit=[], division=None, early=None)
        parser.add_argument("--clean", metavar="SPEC", help="clean images to unlearn with")
        parser.add_argument(
            "--test", metavar="SPEC", help="other clean images to judge by (else some are held back)"
        )
    parser.add_argument("--trigger", metavar="TRIGGER", help="the attack's trigger, only to measure")
    parser.add_argument("--target", type=int, metavar="N", help="the class that the attack forces")
    parser.add_argument(
        "--normalize",
        metavar="NAME",
        help="how the network's inputs were normalised: none, cifar10, cifar100, gtsrb, imagenet, tiny, half, or "
        "MEAN/STD such as 0.49,0.48,0.45/0.25,0.24,0.26 (else whatever gives the most accuracy on clean images)",
    )
    parser.add_argument("--channels", choices=("rgb", "bgr"), help="order of the network's colour channels")
    parser.add_argument(
        "--size",
        type=positive,
        metavar="N",
        help="height and width to bring pictures to, where the network takes any (else their own)",
    )
    parser.add_argument(
        "--leave-out-shared",
        action="store_true",
        help="clean without the images that are also among those to judge by",
    )
    parser.add_argument("--preset", choices=sorted(presets), default="default", help="named settings")
    parser.add_argument("--rounds", type=positive, metavar="N", help="rounds, instead of the preset's")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another setting of the preset; repeatable",
    )
    parser.add_argument(
        "--reactivate",
        type=positive,
        nargs="+",
        default=[],
        metavar="N",
        help="fine-tune the cleaned model on N triggered images and report how much of the backdoor returns",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="of every random choice (default 0)"
    )
    parser.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help=f"output folder (default: CHECKPOINT-{name}, such as model-{name})",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted run in DIR")
    parser.add_argument("--force", action="store_true", help="replace the run in DIR")
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    return parser


def _run(
    procedure: Any,
    presets: Mapping[str, Any],
    flags: argparse.Namespace,
    inputs: Any,
    out: Path,
    started: float,
) -> int:
    """Runs on ``inputs``, which has the attributes ckpt, key, clean, test, trigger, target and force."""
    from jaxunlearn import job
    from jaxunlearn._runtime import keep_compilations
    from jaxunlearn.display import make_display
    from jaxunlearn.inputs import Request

    keep_compilations()
    display = make_display(quiet=flags.quiet)
    subtask = flags.subtask
    request = Request(
        checkpoint=inputs.ckpt,
        key=inputs.key,
        clean=inputs.clean,
        test=inputs.test,
        trigger=inputs.trigger,
        target=inputs.target,
        preset=flags.preset,
        config=_config(presets, flags),
        seed=flags.seed,
        out=out,
        resume=flags.resume or subtask == "unlearning",
        force=inputs.force,
        normalize=flags.normalize,
        channels=flags.channels,
        leave_out_shared=flags.leave_out_shared,
        reactivate=tuple(flags.reactivate),
        size=flags.size,
        division=flags.division,
        early=flags.early,
    )
    if subtask == "test":
        job.judge(procedure, request, display)
        return 0
    until = procedure.first_stage(request.config) if subtask == "anti-learning" else None
    report = job.run(procedure, request, display, started, until=until)
    if report is None:
        display.say(f"kept     {out}; go on with the subtask unlearning and the same flags.")
        return 0
    seconds = report["seconds"]
    display.say(
        f"took     {sum(seconds.values()):.0f} s, of them {seconds['unlearn']:.0f} s unlearning and "
        f"{seconds['compile']:.0f} s compiling"
    )
    display.say(f"written  {out}: {', '.join(report['files'])}")
    return 0 if report["stopped"] is None else 1


def _config(presets: Mapping[str, Any], flags: argparse.Namespace) -> Any:
    rounds = [] if flags.rounds is None else [f"rounds={flags.rounds}"]
    early = [] if flags.early is None else ["prefilter=early"]
    return configured(presets[flags.preset], [*rounds, *early, *flags.set])


def settings_of(config: Any) -> str:
    """The settings of a config as texts that ``configured`` takes.

    Example:
      >>> from jaxunlearn.finetune import PRESETS
      >>> settings_of(PRESETS["default"]).split(", ")[0]
      'rounds=4'
    """

    def text_of(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:g}"
        return str(value).lower() if isinstance(value, bool) else str(value)

    names = (field.name for field in dataclasses.fields(config))
    return ", ".join(f"{name}={text_of(getattr(config, name))}" for name in names)


def configured(config: Any, assignments: Sequence[str], option: str = "--set") -> Any:
    """A config with the changes that texts such as ``learning_rate=0.01`` name.

    Raises:
      InputError: if there is no such setting or the value does not fit it.
    """
    names = [field.name for field in dataclasses.fields(config)]
    changes: dict[str, Any] = {}
    for text in assignments:
        name, _, value = text.partition("=")
        if name not in names:
            raise InputError(f"{option} {text}: there is no setting {name}; there are {', '.join(names)}.")
        kind = type(getattr(config, name))
        try:
            changes[name] = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            expected = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise InputError(f"{option} {text}: {value!r} is not {expected}.") from None
    try:
        return dataclasses.replace(config, **changes)
    except ValueError as error:
        raise InputError(str(error)) from None


def _clean(
    procedure: Any, presets: Mapping[str, Any], flags: argparse.Namespace, out: Path, started: float
) -> int:
    trains = procedure.first_stage is not None
    if flags.attack is not None:
        _take_attack(flags, trains=trains)
    if flags.arch is not None and flags.ckpt is not None:
        raise InputError("--arch trains a network and --ckpt and --attack bring one; give one of them.")
    if flags.fit and flags.arch is None:
        raise InputError("--fit belongs to the training of a network; give it with --arch, or leave it away.")
    unknown = flags.ckpt is None and flags.arch is None
    if trains and (unknown or flags.clean is None or flags.test is None):
        raise InputError(
            "--ckpt FILE (or --arch ARCH, to train one), --train SPEC and --test SPEC are needed, or --attack DIR, or "
            "--demo."
        )
    if trains and flags.test.startswith("attack:"):
        raise InputError(
            f"--test {flags.test} names triggered images; give clean ones that are not in --train with --test, and "
            "these with --trigger."
        )
    if unknown or flags.clean is None:
        raise InputError(
            "--ckpt FILE and --clean SPEC are needed, or --attack DIR and --clean SPEC, or --demo."
        )
    attack = any(text is not None and text.startswith("attack:") for text in (flags.trigger, flags.test))
    if not attack and (flags.trigger is None) != (flags.target is None):
        raise InputError(
            "--trigger and --target belong together: what the attack adds, and the class it forces."
        )
    if flags.arch is not None:
        _train(procedure, presets, flags, out)
    return _run(procedure, presets, flags, flags, out, started)


def _train(procedure: Any, presets: Mapping[str, Any], flags: argparse.Namespace, out: Path) -> None:
    """Fills in the checkpoint of a network that is trained on the images as they are, unless it is there."""
    from jaxunlearn import trainer
    from jaxunlearn._runtime import keep_compilations
    from jaxunlearn.data import read_division
    from jaxunlearn.display import make_display
    from jaxunlearn.fit import training_for
    from jaxunlearn.inputs import REPORT_FILE, check_enough, check_folder, checked_trigger, files_written

    given = [name for name in ("key", "normalize", "channels") if getattr(flags, name) is not None]
    if given:
        raise InputError(f"--arch trains a network of plain pixels, without --{given[0]}; leave that away.")
    if flags.early is not None:
        raise InputError(
            "--arch trains a network, which --early cannot be from; give --set prefilter=early, and what it is early "
            "in its training is asked."
        )
    flags.ckpt, flags.normalize = out / trainer.MODEL, "none"
    if flags.subtask == "test":
        return
    if _asks_early(_config(presets, flags)):
        flags.early = out / trainer.EARLY
    goes_on = flags.resume or flags.subtask == "unlearning"
    interrupted = any(out.glob(f"*{trainer.STATE}"))
    if interrupted and not (goes_on or flags.force):
        raise InputError(
            f"{out} holds an interrupted training already; give --resume to go on with it, or --force to replace it."
        )
    trained, divided = ((out / name).exists() for name in (trainer.FACTS, STATE_FILE))
    if trained and not (goes_on or flags.force or divided or (out / REPORT_FILE).exists()):
        raise InputError(
            f"{out} holds a trained network already; give --resume to go on with it, or --force to train it anew."
        )
    begun = goes_on and (interrupted or trained)
    written = [trainer.MODEL, trainer.EARLY, trainer.FACTS, *files_written(procedure.name, ".pth")]
    if not begun or divided or flags.force:
        check_folder(out, written, resume=goes_on, force=flags.force)
    keep_compilations()
    data, test, spec = trainer.read_sets(
        flags.clean, flags.test, flags.arch, size=flags.size, leave_out=flags.leave_out_shared
    )
    check_enough(data, test)
    config = configured(training_for(spec.image_shape, len(data.labels), spec.family), flags.fit, "--fit")
    if flags.division is not None:
        read_division(flags.division, data)
    display = make_display(quiet=flags.quiet)
    if flags.trigger is not None and not flags.trigger.startswith("attack:"):
        checked_trigger(flags.trigger, flags.target, spec, test)
    replaces = divided or (out / REPORT_FILE).exists()
    trainer.train_model(
        spec,
        data,
        test,
        config,
        seed=flags.seed,
        out=out,
        resume=goes_on,
        display=display,
        stale=[*written, STATE_FILE] if replaces else (),
    )
    flags.resume = goes_on and (out / STATE_FILE).exists()


def _asks_early(config: Any) -> bool:
    """Whether suspects are named by a checkpoint from early in the training."""
    return config.prefilter == "early" and not config.isolation_rounds


def _take_attack(flags: argparse.Namespace, *, trains: bool) -> None:
    """Fills in what a folder of ``python -m jaxunlearn.attacks`` stands for."""
    from jaxunlearn import subjects

    given = [
        name for name in ("ckpt", "arch", "key", "trigger", "target") if getattr(flags, name) is not None
    ]
    if given:
        raise InputError(f"--attack brings its own model and trigger; leave --{given[0]} away, or --attack.")
    if not (flags.attack / subjects.ATTACK).is_file():
        raise InputError(
            f"{flags.attack} holds no {subjects.ATTACK}; give a folder that python -m jaxunlearn.attacks made."
        )
    flags.ckpt = flags.attack / subjects.MODEL
    flags.trigger = f"attack:{flags.attack}"
    flags.test = flags.test or f"npz:{flags.attack / subjects.TEST}"
    if trains:
        flags.clean = flags.clean or f"npz:{flags.attack / subjects.TRAIN}"


def _demo(
    procedure: Any, presets: Mapping[str, Any], flags: argparse.Namespace, out: Path, started: float
) -> int:
    names = (
        "attack",
        "ckpt",
        "arch",
        "key",
        "clean",
        "test",
        "trigger",
        "target",
        "normalize",
        "channels",
        "size",
        "division",
        "early",
    )
    given = [name for name in names if getattr(flags, name) is not None]
    given += [name for name in ("fit", "leave_out_shared") if getattr(flags, name)]
    trains = procedure.first_stage is not None
    if given:
        name = "train" if given[0] == "clean" and trains else given[0].replace("_", "-")
        raise InputError(f"--demo brings its own files; leave --{name} away, or --demo.")
    from jaxunlearn import demo
    from jaxunlearn._runtime import keep_compilations
    from jaxunlearn.display import make_display
    from jaxunlearn.inputs import check_finished, check_folder, files_written

    subtask = flags.subtask
    goes_on = flags.resume or subtask == "unlearning"
    force = flags.force or (flags.out is None and not goes_on)
    _config(presets, flags)
    made = demo.files_made(training_set=trains)
    if subtask == "test":
        check_finished(procedure.name, out)
    else:
        check_folder(out, [*made, *files_written(procedure.name, ".pth")], resume=goes_on, force=force)
    keep_compilations()
    display = make_display(quiet=flags.quiet)
    victim = demo.make_victim(out, display, training_set=trains)
    words = f"{procedure.name} {subtask}" if subtask else procedure.name
    display.say(f"\n$ python -m jaxunlearn.{words} {victim.command_line(out)}")
    victim.force = force
    try:
        return _run(procedure, presets, flags, victim, out, started)
    except InputError:
        if not goes_on and subtask != "test":
            for name in made:
                (out / name).unlink(missing_ok=True)
            remove_empty(out)
        raise
