"""How well DAU divides training sets that go with the published backdoored checkpoints.

Command   python -m experiments.divide_checkpoints --shared DIR --seeds 0
Data      4 000 clean images, a share of them, or none, given the checkpoint's trigger and the label of its attack
Hardware  two CPU cores; a minute or two per checkpoint, poison ratio and seed
Expected  the numbers in experiments/results/divide_checkpoints.json; nothing is published

The checkpoints' own training sets are not known, and these are not they: their images come from the same collections
and their triggers are the same. Every finished division is written at once; those that the file holds already are not
repeated.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.reproduction import CHECKPOINTS, add_result, made_by, read_results, victim_of
from experiments.tables import NAMES
from jaxunlearn import cli, dau
from jaxunlearn._runtime import keep_compilations
from jaxunlearn.attacks import Poisoned, poison

RESULTS = Path(__file__).parent / "results" / "divide_checkpoints.json"
IMAGES = 4000
RATIOS = (0.1, 0.01, 0.0)


def divide(shared: Path, name: str, ratio: float, seed: int) -> dict[str, Any]:
    """Divides one training set; how much of what was taken for poisoned is, and how much of the poison was found."""
    (spec, variables), clean, attack, _ = victim_of(shared, name, IMAGES)
    poison_key, dau_key = jax.random.split(jax.random.key(seed))
    images, nothing = np.asarray(clean.images), np.zeros(IMAGES, bool)
    made = (
        poison(images, clean.labels, attack, ratio=ratio, key=poison_key)
        if ratio
        else Poisoned(images, np.asarray(clean.labels), nothing, nothing)
    )
    since = time.monotonic()
    given = (spec.apply, variables, made.images, made.labels, dau.PRESETS["default"], dau_key)
    division, _ = dau.divide(*given, head=spec.head)
    parts = jax.tree.map(np.asarray, division.parts)
    found = int(parts.poisoned.sum())
    return {
        **dau.quality(parts, made.poisoned)._asdict(),
        "found": found,
        "left_out": IMAGES - found - int(parts.clean.sum()),
        "seconds": round(time.monotonic() - since, 1),
    }


def render(results: dict[str, Any]) -> str:
    """Means over the seeds in percent, as Markdown; of sets without poison, how many images are taken for it."""
    lines = ["| checkpoint | poison | precision | recall | seeds |", "|---|---|---|---|---|"]
    for name, by_ratio in results.items():
        for ratio, by_seed in by_ratio.items():
            cells = []
            for what in ("precision", "recall"):
                values = [one[what] for one in by_seed.values() if one[what] is not None]
                cells.append(f"{100 * statistics.mean(values):.1f}" if values else "none found")
            if not float(ratio):
                found = statistics.mean(one["found"] for one in by_seed.values())
                cells = [f"{found:.0f} of {IMAGES} taken for poisoned", ""]
            lines.append(
                f"| {NAMES[name]} | {100 * float(ratio):g} % | {' | '.join(cells)} | {len(by_seed)} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs what is missing, writes it, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=cli.path, required=True, help="folder with checkpoints and data")
    parser.add_argument("--seeds", type=cli.seed, nargs="+", default=[0])
    parser.add_argument(
        "--checkpoints", nargs="+", choices=list(CHECKPOINTS), default=list(CHECKPOINTS), metavar="NAME"
    )
    parser.add_argument("--out", type=cli.path, default=RESULTS)
    flags = parser.parse_args()
    keep_compilations()
    for seed in flags.seeds:
        for name in flags.checkpoints:
            for ratio in RATIOS:
                if str(seed) in read_results(flags.out).get(name, {}).get(f"{ratio:g}", {}):
                    print(
                        f"{name} {ratio} {seed} is in {flags.out} already; give another --out to measure anew."
                    )
                    continue
                found = divide(flags.shared, name, ratio, seed)
                print(name, ratio, seed, found, flush=True)
                add_result(flags.out, (name, f"{ratio:g}", str(seed)), found | made_by())
    sys.stdout.write(render(read_results(flags.out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
