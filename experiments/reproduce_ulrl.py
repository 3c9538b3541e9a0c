"""ULRL on the five published backdoored checkpoints, against a run of the official steps on them.

Command   python -m experiments.reproduce_ulrl --shared DIR --preset reference --seeds 0 1 2
Data      500 clean images to unlearn with, the test images of reproduce_ibau.py to judge by
Hardware  two CPU cores; about 40 s per run, of which judging is half on GTSRB
Expected  the ``before`` numbers exactly (two images may differ by rounding); afterwards the means in
          experiments/results/ulrl_checkpoints.json

``reference`` stands for the settings that were published for the data set of a checkpoint, without augmentation,
as the run compared with has none. Every finished run is written at once; runs that the file holds already
are not repeated. ``--quick`` takes two epochs of relearning.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax

from experiments.reproduction import CHECKPOINTS, rates, victim_of
from jaxunlearn import _loop, ulrl
from jaxunlearn._files import write_whole
from jaxunlearn._runtime import keep_compilations
from jaxunlearn.cli import configured

CLEAN_IMAGES = 500


def config_of(preset: str, name: str) -> ulrl.Config:
    """The settings for a checkpoint."""
    if preset != "reference":
        return ulrl.PRESETS[preset]
    published = {"cifar10": "reference", "gtsrb": "reference-gtsrb"}[CHECKPOINTS[name][0]]
    return dataclasses.replace(ulrl.PRESETS[published], crop_padding=0, flip=False)


def run(shared: Path, name: str, config: ulrl.Config, seed: int) -> dict[str, Any]:
    """Cleans one checkpoint and returns what was found and the numbers before and after."""
    model, data, judge = victim_of(shared, name, CLEAN_IMAGES)
    method = ulrl.make_method(model.spec.apply, ulrl.Execution(), head=model.spec.head)
    result: dict[str, Any] = {"before": rates(judge(model.variables))}
    print(f"{name}  seed {seed}  before {result['before']}", flush=True)
    since = time.monotonic()
    state = method.init(model.variables, data, config, jax.random.key(seed))
    for number, new_state, stats in _loop.rounds(method, state, data, 1, config.rounds):
        state = new_state
        if number == config.unlearning_rounds:
            result["suspect"], result["z"] = int(stats.suspect), round(float(stats.z), 2)
            result["neurons"], result["rate"] = int(stats.found), float(f"{stats.rate:.4g}")
    jax.block_until_ready(state)
    result["seconds"] = round(time.monotonic() - since, 1)
    result["after"] = rates(judge(method.finish(state)))
    print(f"  {result}", flush=True)
    return result


def main() -> int:
    """Runs what is missing, writes it, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True, help="folder with checkpoints, data, reference")
    parser.add_argument("--preset", choices=("reference", "default"), default="default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--checkpoints", nargs="+", default=list(CHECKPOINTS), metavar="NAME")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other settings")
    parser.add_argument("--quick", action="store_true", help="two epochs of relearning")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "ulrl_checkpoints.json"
    )
    flags = parser.parse_args()
    settings = [*flags.set, *(["rounds=22"] if flags.quick else [])]
    keep_compilations()
    label = " ".join([flags.preset, *settings])
    results = json.loads(flags.out.read_text()) if flags.out.exists() else {}
    for seed in flags.seeds:
        for name in flags.checkpoints:
            runs = results.setdefault(label, {}).setdefault(name, {})
            if str(seed) not in runs:
                config = configured(config_of(flags.preset, name), settings)
                runs[str(seed)] = run(flags.shared, name, config, seed)
                write_whole(flags.out, (json.dumps(results, indent=1) + "\n").encode())
    official = json.loads((flags.shared / "reference" / "ulrl-official.json").read_text())["checkpoints"]
    print_table(results[label], official)
    return 0


def print_table(results: dict[str, Any], official: dict[str, Any]) -> None:
    """Means and standard deviations over the seeds in percent, beside the official run."""
    print(f"{'checkpoint':32}{'seeds':>6}{'ACC':>22}{'ASR':>22}{'RA':>14}   found   official ACC/ASR/RA")
    for name, runs in results.items():
        cells = []
        for rate in ("acc", "asr", "ra"):
            values = [100 * run["after"][rate] for run in runs.values()]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            before = 100 * next(iter(runs.values()))["before"][rate]
            start = "" if rate == "ra" else f"{before:8.2f}>"
            cells.append(f"{start}{statistics.mean(values):6.2f} ± {spread:5.2f}")
        found = sum(run["suspect"] == official[name]["target"] for run in runs.values())
        theirs = "/".join(f"{100 * official[name]['after'][rate]:.2f}" for rate in ("acc", "asr", "ra"))
        print(f"{name:32}{len(runs):6} {' '.join(cells)}   {found}/{len(runs)}   {theirs}")


if __name__ == "__main__":
    sys.exit(main())
