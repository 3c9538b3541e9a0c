"""What a GPU does in a run of a benchmark: how many kernels, how long they run, and how long it waits for them.

Command   python -m experiments.launches NAME [--images N] [--batch N] [--checkpoint FILE --clean SPEC] [--top N]
          with NAME one of fit, sau, ulrl
Hardware  a GPU
Time      a minute
Expected  the tables in experiments/results/bench_NAME.md

Each side is a process of its own: two runs to compile and warm up, one by the clock, and one under its own profiler,
which sees every kernel. Busy is the sum of the kernels' times, below which no way to launch these kernels can come.
"""

import argparse
import collections
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

USUAL = {"fit": (25_600, 128), "sau": (2560, 256), "ulrl": (5120, 128)}  # images, in batches

Kernels = list[tuple[str, float]]
"""Name and milliseconds of each."""


def of_torch(run: Callable[[], Any]) -> Kernels:
    """By PyTorch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        run()
    events = profiled.events() or []
    return [(one.name, one.device_time_total / 1e3) for one in events if "CUDA" in str(one.device_type)]


def of_jax(run: Callable[[], Any]) -> Kernels:
    """By JAX's profiler: what ran on a GPU's streams."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        files = sorted(Path(folder).rglob("*.xplane.pb"))
        planes = [plane for file in files for plane in jax.profiler.ProfileData.from_file(str(file)).planes]
    streams = [
        line for plane in planes if "GPU" in plane.name for line in plane.lines if "Stream" in line.name
    ]
    return [(event.name, event.duration_ns / 1e6) for line in streams for event in line.events]


PROFILERS = {"torch": of_torch, "jax": of_jax}


def look(flags: argparse.Namespace) -> dict[str, Any]:
    """The wall time and the kernels of one side."""
    start = importlib.import_module(f"experiments.bench_{flags.name}").SIDES[flags.side]
    run = start(flags)
    run(), run()
    since = time.perf_counter()
    run()
    wall = 1e3 * (time.perf_counter() - since)
    return {"wall": wall, "kernels": PROFILERS[flags.side](run)}


def main() -> int:
    """Prints a line for each side, and the kernels that take most of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(USUAL))
    parser.add_argument("--images", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--checkpoint", help="of a small VGG, for sau")
    parser.add_argument("--clean", help="the images that it is unlearned with, for sau")
    parser.add_argument("--top", type=int, default=0, help="kernels to name")
    parser.add_argument("--side", choices=PROFILERS, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    images, batch = USUAL[flags.name]
    flags.images, flags.batch = flags.images or images, flags.batch or batch
    if flags.side:
        print(json.dumps(look(flags)))
        return 0
    named = []
    print("| side | wall ms | busy ms | kernels | us between starts |\n|---|---|---|---|---|")
    for side in PROFILERS:
        command = [sys.executable, "-m", "experiments.launches", *sys.argv[1:], "--side", side]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        seen = json.loads(answer.splitlines()[-1])
        wall, kernels = seen["wall"], seen["kernels"]
        busy, apart = sum(one[1] for one in kernels), 1e3 * wall / max(len(kernels), 1)
        print(f"| {side} | {wall:.1f} | {busy:.1f} | {len(kernels)} | {apart:.1f} |", flush=True)
        total, count = collections.Counter[str](), collections.Counter(name for name, _ in kernels)
        for name, milliseconds in kernels:
            total[name] += milliseconds
        named += [
            f"{side:6}{ms:9.2f} ms {count[name]:6} x {name[:120]}"
            for name, ms in total.most_common(flags.top)
        ]
    print("\n".join(["", *named]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
