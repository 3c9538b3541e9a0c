"""I-BAU on the five published backdoored checkpoints, against what the official code reaches on them.

Command   python experiments/reproduce_ibau.py --shared DIR --preset default --seeds 0 1 2
Data      5 000 clean images to unlearn with, the test images that follow to judge by (1 017 and 7 630)
Hardware  two CPU cores; about 70 s per run of the default preset, three minutes of the reference preset
Expected  the ``before`` numbers exactly (two images may differ by rounding); after three rounds the means in
          experiments/results/ibau_checkpoints.json

Every finished run is written at once; runs that the file holds already are not repeated. ``--quick`` takes
500 images to unlearn with.
"""

import argparse
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from converters import convert, torch_io
from jaxunlearn import _loop, ibau
from jaxunlearn._files import write_whole
from jaxunlearn._runtime import keep_compilations
from jaxunlearn.attacks import Trigger
from jaxunlearn.cli import configured
from jaxunlearn.data import load
from jaxunlearn.evaluate import Evaluation, evaluate
from jaxunlearn.inputs import parse_trigger

CLEAN_IMAGES = 5000
PATCH = "patch:size=4,offset=1,value=1"
CHECKPOINTS = {
    "badnets_8_02_ckpt.pth": ("cifar10", PATCH, 8),
    "trojan_sq_2_02_ckpt.pth": ("cifar10", "trojan_sq.png", 2),
    "trojan_wm_2_02_ckpt.pth": ("cifar10", "trojan_wm.png", 2),
    "gtsrbbadnets_8_02_ckpt.pth": ("gtsrb", PATCH, 8),
    "gtsrbtrojan_wm_2_02_ckpt.pth": ("gtsrb", "trojan_wm.png", 2),
}


@functools.cache
def images_of(shared: Path, data: str) -> tuple[Any, Any]:
    """The images to unlearn with and the images to judge by."""
    if data == "cifar10":
        folder = shared / "data" / "cifar10-lossless-subset"
        return load(f"parquet:{folder}/train.parquet[:{CLEAN_IMAGES}]"), load(
            f"parquet:{folder}/test.parquet"
        )
    whole = load(f"parquet:{shared}/data/gtsrb/test.parquet")
    return whole.take(slice(CLEAN_IMAGES)), whole.take(slice(CLEAN_IMAGES, None))


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


def run(shared: Path, name: str, config: ibau.Config, seed: int, clean_images: int) -> dict[str, Any]:
    """Cleans one checkpoint and returns the numbers of every round."""
    model, data, judge = victim_of(shared, name, clean_images)
    method = ibau.make_method(model.spec.apply, ibau.Execution())
    before = rates(judge(model.variables))
    print(f"{name}  seed {seed}  {clean_images} images  before {before}", flush=True)
    state = method.init(model.variables, data, config, jax.random.key(seed))
    history = []
    since = time.monotonic()
    for number, new_state, stats in _loop.rounds(method, state, data, 1, config.rounds):
        seconds = time.monotonic() - since
        entry = rates(judge(method.finish(new_state)))
        entry["radius"] = round(float(stats.radius), 3)
        print(f"  round {number}  {entry}  {seconds:.0f} s", flush=True)
        history.append(entry)
        since = time.monotonic()
    return {"before": before, "rounds": history}


def main() -> int:
    """Runs what is missing, writes it, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="folder with checkpoints, data, reference")
    parser.add_argument("--preset", choices=sorted(ibau.PRESETS), default="default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--checkpoints", nargs="+", default=list(CHECKPOINTS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=CLEAN_IMAGES, help="clean images to unlearn with")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings")
    parser.add_argument("--quick", action="store_true", help="500 images to unlearn with")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "ibau_checkpoints.json"
    )
    flags = parser.parse_args()
    images = 500 if flags.quick else flags.images
    config = configured(dataclasses.replace(ibau.PRESETS[flags.preset], rounds=flags.rounds), flags.set)
    keep_compilations()
    label = " ".join([flags.preset, f"images={images}", f"rounds={flags.rounds}", *flags.set])
    results = json.loads(flags.out.read_text()) if flags.out.exists() else {}
    for name in flags.checkpoints:
        for seed in flags.seeds:
            runs = results.setdefault(label, {}).setdefault(name, {})
            if str(seed) not in runs:
                runs[str(seed)] = run(flags.shared, name, config, seed, images)
                write_whole(flags.out, (json.dumps(results, indent=1) + "\n").encode())
    official = json.loads((flags.shared / "reference" / "ibau-official.json").read_text())["checkpoints"]
    print_table(results[label], official)
    return 0


def print_table(results: dict[str, Any], official: dict[str, Any]) -> None:
    """Means over the seeds, beside the official run."""
    print(f"{'checkpoint':32}{'seeds':>6}{'ACC':>16}{'ASR':>16}{'RA':>8}   official ACC/ASR/RA")
    for name, runs in results.items():
        last = [run["rounds"][-1] for run in runs.values()]
        before = next(iter(runs.values()))["before"]
        mean = {key: sum(entry[key] for entry in last) / len(last) for key in ("acc", "asr", "ra")}
        theirs = official[name]["rounds"][-1]
        print(
            f"{name:32}{len(last):6}"
            f"{100 * before['acc']:8.2f}>{100 * mean['acc']:6.2f} {100 * before['asr']:8.2f}>{100 * mean['asr']:6.2f}"
            f"{100 * mean['ra']:8.2f}   "
            + "/".join(f"{100 * theirs[key]:.2f}" for key in ("acc", "asr", "ra"))
        )


if __name__ == "__main__":
    sys.exit(main())
