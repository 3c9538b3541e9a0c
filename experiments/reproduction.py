"""What the reproductions share: the published checkpoints, runs that are judged after every round, and tables.

A run is written as soon as it is finished, and is not repeated where the file of results holds it already. A run that
was interrupted goes on after its last finished round.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax

import converters
import jaxunlearn
from converters import convert, torch_io
from experiments.tables import METRICS
from jaxunlearn import _checkpointing, _loop, cli, report
from jaxunlearn._check import InputError
from jaxunlearn._files import write_whole
from jaxunlearn._runtime import keep_compilations
from jaxunlearn._signals import interruptible
from jaxunlearn.attacks import Attack, Trigger, parse_trigger
from jaxunlearn.data import load
from jaxunlearn.evaluate import Evaluation, evaluate

PATCH = "patch:size=4,offset=1,value=1"
CHECKPOINTS = {
    "badnets_8_02_ckpt.pth": ("cifar10", PATCH, 8),
    "trojan_sq_2_02_ckpt.pth": ("cifar10", "trojan_sq.png", 2),
    "trojan_wm_2_02_ckpt.pth": ("cifar10", "trojan_wm.png", 2),
    "gtsrbbadnets_8_02_ckpt.pth": ("gtsrb", PATCH, 8),
    "gtsrbtrojan_wm_2_02_ckpt.pth": ("gtsrb", "trojan_wm.png", 2),
}


_MOST_CLEAN_IMAGES = 5000  # the test images follow them


class Study(NamedTuple):
    """A method to be compared with its official code.

    Attributes:
      method: the package.
      name: of the official numbers, ``reference/NAME-official.json``, and of ours, ``results/NAME_checkpoints.json``.
      clean_images: to unlearn with, as in the official runs.
      rounds: to run unless told otherwise; None for those of the preset.
      notes: what to keep of a round's statistics, as plain values.
      settings: those of a preset for a checkpoint, where they differ from the preset's.
      judged: after every ``round``, or at the ``end``.
      quick: the number of clean images of the quick variant, which takes one checkpoint.
      quick_rounds: its rounds at most; None for those of the preset.
      takes_head: whether the method works on the last layer, and is told its name.
    """

    method: ModuleType
    name: str
    clean_images: int
    rounds: int | None
    notes: Callable[[Any], dict[str, Any]]
    settings: Callable[[str, str], Any] | None = None
    judged: str = "round"
    quick: int = 500
    quick_rounds: int | None = None
    takes_head: bool = False

    def config(self, preset: str, checkpoint: str) -> Any:
        """The settings for a checkpoint."""
        return self.settings(preset, checkpoint) if self.settings else self.method.PRESETS[preset]


@functools.cache
def images_of(shared: Path, data: str) -> tuple[Any, Any]:
    """The images to unlearn with, of which a study takes the first ones, and the images to judge by."""
    if data == "cifar10":
        folder = shared / "data" / "cifar10-lossless-subset"
        return load(f"parquet:{folder}/train.parquet[:{_MOST_CLEAN_IMAGES}]"), load(
            f"parquet:{folder}/test.parquet"
        )
    whole = load(f"parquet:{shared}/data/gtsrb/test.parquet")
    return whole.take(slice(_MOST_CLEAN_IMAGES)), whole.take(slice(_MOST_CLEAN_IMAGES, None))


def trigger_of(shared: Path, name: str) -> Trigger:
    """The trigger of a checkpoint."""
    picture = shared / "checkpoints" / "triggers" / name
    return parse_trigger(f"image:{picture}" if name.endswith(".png") else name)


def rates(evaluation: Evaluation) -> dict[str, float]:
    """Rates rounded to a hundredth of a percent."""
    return {name: round(rate, 4) for name, rate in evaluation.rates().items() if rate is not None}


class Victim(NamedTuple):
    """A checkpoint, the images to unlearn with, its attack, and its judge: ``judge(variables)``."""

    model: convert.Converted
    data: _loop.Data
    attack: Attack
    judge: Callable[[Any], Evaluation]


def victim_of(shared: Path, name: str, clean_images: int) -> Victim:
    """Everything that belongs to a checkpoint."""
    data, trigger_name, target = CHECKPOINTS[name]
    clean, test = images_of(shared, data)
    clean = clean.take(slice(clean_images))
    model = convert.from_torch(torch_io.read(shared / "checkpoints" / name).arrays)
    attack = Attack(trigger=trigger_of(shared, trigger_name), target=target)
    judge = functools.partial(
        evaluate,
        model.spec.apply,
        images=test.images,
        labels=test.labels,
        trigger=attack.trigger,
        target=target,
    )
    return Victim(model, _loop.Data(clean.images, clean.labels), attack, judge)


def run(
    study: Study,
    shared: Path,
    name: str,
    config: Any,
    seed: int,
    clean_images: int,
    unfinished: Path | None = None,
) -> dict[str, Any]:
    """Cleans one checkpoint and returns the numbers of every round or, of a study judged at the end, of all of them.

    ``unfinished`` is where the state lies between the rounds; a run that finds one there goes on with it.
    """
    model, data, _, judge = victim_of(shared, name, clean_images)
    head = {"head": model.spec.head} if study.takes_head else {}
    execution = _loop.Execution()
    method, data = study.method.make_method(model.spec.apply, execution, **head), data.for_loop(execution)
    state = method.init(model.variables, data, config, jax.random.key(seed))
    of_run = {"config": dataclasses.asdict(config), **made_by()}
    same: dict[str, Any] = json.loads(json.dumps(of_run))
    if unfinished is not None and unfinished.exists():
        done = _checkpointing.load_notes(unfinished)
        try:
            _checkpointing.check_same(same, done)
        except InputError as error:
            raise InputError(f"{error} (Of a reproduction: remove {unfinished}.)") from None
        state = _checkpointing.load_state(unfinished, state)
    else:
        done = same | {"before": rates(judge(model.variables)), "rounds": []}
    history = done["rounds"]
    print(f"{name}  seed {seed}  {clean_images} images  before {done['before']}", flush=True)
    since = time.monotonic()
    for number, new_state, stats in _loop.rounds(method, state, data, len(history) + 1, config.rounds):
        state = new_state
        jax.block_until_ready(state)
        entry = study.notes(stats) | {"seconds": round(time.monotonic() - since, 1)}
        if study.judged == "round":
            entry = rates(judge(method.finish(state))) | entry
            print(f"  round {number}  {entry}", flush=True)
        history.append(entry)
        if unfinished is not None:
            _checkpointing.save_state(unfinished, state, done)
        since = time.monotonic()
    if study.judged == "round":
        return done
    seconds = round(sum(entry["seconds"] for entry in history), 1)
    ended = {name: done[name] for name in (*of_run, "before")} | {"after": rates(judge(method.finish(state)))}
    ended |= history[-1] | {"seconds": seconds}
    print(f"  {ended}", flush=True)
    return ended


def main(study: Study, description: str) -> int:
    """Runs what is missing, writes it, and prints a table."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    presets = study.method.PRESETS
    parser.add_argument(
        "--shared", type=cli.path, required=True, help="folder with checkpoints, data, reference"
    )
    parser.add_argument("--preset", choices=sorted(presets), required=True)
    parser.add_argument("--seeds", type=cli.seed, nargs="+", default=[0])
    parser.add_argument(
        "--checkpoints", nargs="+", choices=list(CHECKPOINTS), metavar="NAME", help="these alone"
    )
    parser.add_argument("--rounds", type=int, default=study.rounds)
    parser.add_argument("--images", type=int, default=study.clean_images, help="clean images to unlearn with")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"minutes: {study.quick} images to unlearn with, and one checkpoint and few rounds unless told otherwise; "
        "--out is needed, for the results are none of those that are kept",
    )
    results_file = Path(__file__).parent / "results" / f"{study.name}_checkpoints.json"
    parser.add_argument(
        "--out", type=cli.path, help=f"the results (default: {results_file.name}, which are kept)"
    )
    flags = parser.parse_args()
    if flags.quick and flags.out is None:
        parser.error("--quick makes results that are none of those that are kept; give --out a file for them")
    flags.out = flags.out or results_file
    flags.checkpoints = flags.checkpoints or list(CHECKPOINTS)[: 1 if flags.quick else None]
    try:
        with interruptible():
            return _compare(study, flags)
    except InputError as error:
        parser.error(str(error))
    except _loop.NonFiniteError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command goes on where this one was.\n")
        return 130


def _compare(study: Study, flags: argparse.Namespace) -> int:
    images = study.quick if flags.quick else flags.images
    keep_compilations()
    labels = []
    for name in flags.checkpoints:
        usual = study.config(flags.preset, name)
        most = study.quick_rounds if flags.quick else None
        rounds = flags.rounds or (None if most is None else min(usual.rounds, most))
        config = cli.configured(usual, ([f"rounds={rounds}"] if rounds else []) + flags.set)
        label = " ".join([flags.preset, f"images={images}", f"rounds={config.rounds}", *flags.set])
        labels.append(label)
        for seed in flags.seeds:
            if str(seed) in read_results(flags.out).get(label, {}).get(name, {}):
                print(f"{name}, seed {seed}, is in {flags.out} already; give another --out to measure anew.")
            else:
                of_this_run = hashlib.sha256(f"{label} {name} {seed}".encode()).hexdigest()[:8]
                unfinished = flags.out.with_name(f"{flags.out.stem}-{of_this_run}.unfinished.npz")
                finished = run(study, flags.shared, name, config, seed, images, unfinished)
                add_result(flags.out, (label, name, str(seed)), finished)
                unfinished.unlink()
    reference = flags.shared / "reference" / f"{study.name}-official.json"
    official = json.loads(reference.read_text())["checkpoints"] if reference.exists() else {}
    for label in dict.fromkeys(labels):
        print_table(read_results(flags.out)[label], official)
    return 0


def read_results(path: Path) -> dict[str, Any]:
    """All runs so far."""
    return json.loads(path.read_text()) if path.exists() else {}


def add_result(path: Path, keys: Sequence[str], value: Any) -> None:
    """Puts a result into the file at the place that nested keys name; others may have written to it meanwhile."""
    results = read_results(path)
    place = functools.reduce(lambda inner, key: inner.setdefault(key, {}), keys[:-1], results)
    place[keys[-1]] = value
    write_whole(path, (json.dumps(results, indent=1) + "\n").encode())


@functools.cache
def code() -> str:
    """The first digits of a hash of the sources of ``jaxunlearn`` and ``converters``, to tell what a line came from."""
    digest = hashlib.sha256()
    for package in (jaxunlearn, converters):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
            digest.update(
                path.relative_to(root.parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0"
            )
    return digest.hexdigest()[:12]


def made_by() -> dict[str, Any]:
    """What made a result: the code, the device and the versions."""
    return {"code": code(), "device": report.device(), "versions": report.versions()}


def print_table(results: dict[str, Any], official: dict[str, Any]) -> None:
    """Means and standard deviations over the seeds in percent, beside the official run after as many rounds.

    Behind it the largest difference between the two in any round that both have and, of a method that names a class,
    how many runs named the attack's.
    """
    print(f"{'checkpoint':32}{'seeds':>6}{'ACC':>24}{'ASR':>24}{'RA':>16}   official ACC/ASR/RA, differences")
    for name, runs in results.items():
        before = next(iter(runs.values()))["before"]
        histories = [run.get("rounds") or [run["after"]] for run in runs.values()]
        cells = []
        for key in METRICS:
            values = [100 * history[-1][key] for history in histories]
            spread = f" ±{statistics.stdev(values):5.2f}" if len(values) > 1 else ""
            start = "" if key == "ra" else f"{100 * before[key]:6.2f} > "
            cells.append(f"{start}{statistics.mean(values):6.2f}{spread}")
        row = f"{name:32}{len(runs):6}{cells[0]:>24}{cells[1]:>24}{cells[2]:>16}"
        known = official.get(name, {})
        theirs = known.get("rounds", [known["after"]] if "after" in known else [])[: len(histories[0])]
        if theirs:
            means = [
                {key: statistics.mean(entry[key] for entry in entries) for key in METRICS}
                for entries in zip(*histories, strict=True)
            ]
            apart = [
                max(abs(o[key] - t[key]) for o, t in zip(means, theirs, strict=False)) for key in METRICS
            ]
            last = (theirs[-1][key] for key in METRICS)
            row += "   " + ", ".join(
                "/".join(f"{100 * rate:.2f}" for rate in rates) for rates in (last, apart)
            )
        if "target" in known:
            named = sum(run.get("suspect") == known["target"] for run in runs.values())
            row += f", class named {named}/{len(runs)}"
        print(row)
