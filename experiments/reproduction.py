"""What the reproductions share: the published checkpoints, runs that are judged after every round, and tables.

A run is written as soon as it is finished, and is not repeated where the file of results holds it already. A run that
was interrupted goes on after its last finished round.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax

from converters import convert, torch_io
from jaxunlearn import _checkpointing, _loop
from jaxunlearn._files import write_whole
from jaxunlearn._runtime import keep_compilations
from jaxunlearn.attacks import Trigger, parse_trigger
from jaxunlearn.cli import configured
from jaxunlearn.data import load
from jaxunlearn.evaluate import Evaluation, evaluate

METRICS = ("acc", "asr", "ra")
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
      notes: what to keep of a round's statistics.
    """

    method: ModuleType
    name: str
    clean_images: int
    rounds: int | None
    notes: Callable[[Any], dict[str, float]]


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
    """A checkpoint, the images to unlearn with, and its judge: ``judge(variables)``."""

    model: convert.Converted
    data: _loop.Data
    judge: Callable[[Any], Evaluation]


def victim_of(shared: Path, name: str, clean_images: int) -> Victim:
    """Everything that belongs to a checkpoint."""
    data, trigger_name, target = CHECKPOINTS[name]
    clean, test = images_of(shared, data)
    clean = clean.take(slice(clean_images))
    model = convert.from_torch(torch_io.read(shared / "checkpoints" / name).arrays)
    judge = functools.partial(
        evaluate,
        model.spec.apply,
        images=test.images,
        labels=test.labels,
        trigger=trigger_of(shared, trigger_name),
        target=target,
    )
    return Victim(model, _loop.Data(clean.images, clean.labels), judge)


def run(
    study: Study, shared: Path, name: str, config: Any, seed: int, clean_images: int, unfinished: Path
) -> dict[str, Any]:
    """Cleans one checkpoint and returns the numbers of every round.

    ``unfinished`` is where the state lies between the rounds; a run that finds one there goes on with it.
    """
    model, data, judge = victim_of(shared, name, clean_images)
    method = study.method.make_method(model.spec.apply, _loop.Execution())
    state = method.init(model.variables, data, config, jax.random.key(seed))
    done: dict[str, Any] = {"before": rates(judge(model.variables)), "rounds": []}
    if unfinished.exists():
        done = _checkpointing.load_notes(unfinished)
        state = _checkpointing.load_state(unfinished, state)
    history = done["rounds"]
    print(f"{name}  seed {seed}  {clean_images} images  before {done['before']}", flush=True)
    since = time.monotonic()
    for number, new_state, stats in _loop.rounds(method, state, data, len(history) + 1, config.rounds):
        jax.block_until_ready(new_state)
        seconds = round(time.monotonic() - since, 1)
        notes = {name: round(float(value), 3) for name, value in study.notes(stats).items()}
        entry = rates(judge(method.finish(new_state))) | notes | {"seconds": seconds}
        print(f"  round {number}  {entry}", flush=True)
        history.append(entry)
        _checkpointing.save_state(unfinished, new_state, done)
        since = time.monotonic()
    return done


def main(study: Study, description: str) -> int:
    """Runs what is missing, writes it, and prints a table."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    presets = study.method.PRESETS
    parser.add_argument("--shared", type=Path, required=True, help="folder with checkpoints, data, reference")
    parser.add_argument("--preset", choices=sorted(presets), required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--checkpoints", nargs="+", default=list(CHECKPOINTS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=study.rounds)
    parser.add_argument("--images", type=int, default=study.clean_images, help="clean images to unlearn with")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings")
    parser.add_argument("--quick", action="store_true", help="500 images to unlearn with")
    results_file = Path(__file__).parent / "results" / f"{study.name}_checkpoints.json"
    parser.add_argument("--out", type=Path, default=results_file)
    flags = parser.parse_args()
    images = 500 if flags.quick else flags.images
    config = configured(presets[flags.preset], flags.set)
    config = dataclasses.replace(config, rounds=flags.rounds or config.rounds)
    keep_compilations()
    label = " ".join([flags.preset, f"images={images}", f"rounds={config.rounds}", *flags.set])
    for name in flags.checkpoints:
        for seed in flags.seeds:
            if str(seed) not in read_results(flags.out).get(label, {}).get(name, {}):
                of_this_run = hashlib.sha256(f"{label} {name} {seed}".encode()).hexdigest()[:8]
                unfinished = flags.out.with_name(f"{flags.out.stem}-{of_this_run}.unfinished.npz")
                finished = run(study, flags.shared, name, config, seed, images, unfinished)
                results = read_results(flags.out)
                results.setdefault(label, {}).setdefault(name, {})[str(seed)] = finished
                write_whole(flags.out, (json.dumps(results, indent=1) + "\n").encode())
                unfinished.unlink()
    reference = flags.shared / "reference" / f"{study.name}-official.json"
    official = json.loads(reference.read_text())["checkpoints"] if reference.exists() else {}
    print_table(read_results(flags.out)[label], official)
    return 0


def read_results(path: Path) -> dict[str, Any]:
    """All runs so far."""
    return json.loads(path.read_text()) if path.exists() else {}


def print_table(results: dict[str, Any], official: dict[str, Any]) -> None:
    """Means over the seeds after the last round, beside the official run after the same number of rounds.

    The last column is the largest difference between the two in any round that both have.
    """
    print(
        f"{'checkpoint':32}{'seeds':>6}{'ACC':>16}{'ASR':>16}{'RA':>8}   official ACC/ASR/RA, largest difference"
    )
    for name, runs in results.items():
        before = next(iter(runs.values()))["before"]
        ours = [
            {key: sum(entry[key] for entry in entries) / len(entries) for key in METRICS}
            for entries in zip(*(run["rounds"] for run in runs.values()), strict=True)
        ]
        acc, asr, ra = (100 * ours[-1][key] for key in METRICS)
        rates_after = f"{100 * before['asr']:8.2f}>{asr:6.2f}{ra:8.2f}"
        row = f"{name:32}{len(runs):6}{100 * before['acc']:8.2f}>{acc:6.2f} {rates_after}"
        theirs = official.get(name, {"rounds": []})["rounds"][: len(ours)]
        if theirs:
            apart = [max(abs(o[key] - t[key]) for o, t in zip(ours, theirs, strict=False)) for key in METRICS]
            last = (theirs[-1][key] for key in METRICS)
            row += "   " + ", ".join(
                "/".join(f"{100 * rate:.2f}" for rate in rates) for rates in (last, apart)
            )
        print(row)
