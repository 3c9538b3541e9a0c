"""One round of I-BAU (official settings) in plain PyTorch and in jaxunlearn, side by side.

Command   python experiments/bench_ibau.py
Hardware  whatever jax finds; PyTorch gets the same device if it can use it
Time      about three minutes on two CPU cores; ``--quick`` takes one
Expected  the table in experiments/results/bench_ibau.md

Each side is a process of its own, so that memory and threads are its own; the two take turns, round by
round, so that a machine that gets slower slows both. Network, batches, number of steps and K are the same;
tests/parity shows that the two compute the same numbers. Reported are the ratios of the medians.
"""

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # the child processes start in this folder

CLASSES, SIDE = 10, 32
PASSES = ("inner", "outer", "round")


def images_and_labels(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise will do: the time of a convolution does not depend on what it sees."""
    rng = np.random.default_rng(0)
    return rng.random((count, SIDE, SIDE, 3), np.float32), rng.integers(0, CLASSES, count).astype(np.int32)


def torch_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """A round in plain PyTorch."""
    import torch

    from experiments import torch_ibau

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = torch_ibau.SmallVGG(CLASSES).eval().to(device)
    images, labels = images_and_labels(flags.images)
    batches = [
        (
            torch.from_numpy(images[i : i + flags.batch].transpose(0, 3, 1, 2).copy()).to(device),
            torch.from_numpy(labels[i : i + flags.batch]).long().to(device),
        )
        for i in range(0, flags.images, flags.batch)
    ]
    carries = [torch.zeros(len(b[1]), device=device).index_fill(0, torch.tensor([0]), 1.0) for b in batches]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def wait() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def one_round() -> dict[str, float]:
        start = wait()
        delta = torch_ibau.ascend(model, batches, 10.0, 1e-3)
        middle = wait()
        torch_ibau.descend(
            model, optimizer, delta, batches, carries, penalty=1e-3, step=0.1, solver_steps=flags.solver_steps
        )
        end = wait()
        return {"inner": middle - start, "outer": end - middle, "round": end - start}

    return one_round


def jax_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """A round of jaxunlearn, as its users run it; the first call compiles."""
    import jax

    from jaxunlearn import ibau
    from jaxunlearn.models import small_vgg

    # A folder of the caller's: empty at the first start, and full at the second.
    jax.config.update("jax_compilation_cache_dir", flags.cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    spec = small_vgg(CLASSES)
    config = dataclasses.replace(ibau.PRESETS["reference"], batch_size=flags.batch, rounds=1)
    config = dataclasses.replace(config, solver_steps=flags.solver_steps)
    data = ibau.Data(*images_and_labels(flags.images))
    marks: list[float] = []

    def on_batch(done: int, total: int) -> None:
        if done == total:
            marks.append(time.perf_counter())

    # Where passes are scans they have no seams to time, and the same steps also run from a host loop.
    loops = ("host",) if jax.default_backend() == "cpu" else ("host", "scan")
    methods = {
        loop: ibau.make_method(spec.apply, ibau.Execution(loop=loop, on_batch=on_batch)) for loop in loops
    }
    variables = spec.init(jax.random.key(0))
    state = methods["host"].init(variables, data, config, jax.random.key(0))

    def one_round() -> dict[str, float]:
        marks.clear()
        start = time.perf_counter()
        jax.block_until_ready(methods["host"].step(state, data))
        seconds = {"inner": marks[0] - start, "outer": marks[1] - marks[0], "round": marks[1] - start}
        if "scan" in methods:
            start = time.perf_counter()
            jax.block_until_ready(methods["scan"].step(state, data))
            seconds["round"] = time.perf_counter() - start
        return seconds

    return one_round


def child(flags: argparse.Namespace) -> None:
    """Runs a round for every line that comes in, and answers with its times."""
    one_round = {"torch": torch_side, "jax": jax_side}[flags.side](flags)
    for _ in sys.stdin:
        seconds: dict[str, Any] = one_round()
        seconds["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(seconds), flush=True)


class Side:
    """One of the two processes."""

    def __init__(self, name: str, arguments: list[str]) -> None:
        """Starts it."""
        command = [sys.executable, __file__, "--side", name, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def round(self) -> dict[str, float]:
        """Lets it run one round."""
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        """Ends it."""
        self._process.communicate()


def main() -> int:
    """Runs both sides and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--solver-steps", type=int, default=5, help="K")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each side")
    parser.add_argument("--quick", action="store_true", help="300 images, two repeats")
    parser.add_argument("--side", choices=("torch", "jax"), help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.side:
        child(flags)
        return 0
    if flags.quick:
        flags.images, flags.repeats = 300, 2
    with tempfile.TemporaryDirectory() as cache:
        passed_on = [
            f"--{name.replace('_', '-')}={getattr(flags, name)}"
            for name in ("images", "batch", "solver_steps")
        ]
        passed_on.append(f"--cache={cache}")
        sides = {name: Side(name, passed_on) for name in ("torch", "jax")}
        first = {name: side.round() for name, side in sides.items()}
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for _ in range(flags.repeats):
            for name, side in sides.items():
                runs[name].append(side.round())
        for side in sides.values():
            side.stop()
        again = Side("jax", passed_on)
        second_start = again.round()
        again.stop()
    print(
        f"{flags.images} images in batches of {flags.batch}, K = {flags.solver_steps}, "
        f"{flags.repeats} rounds each, {os.cpu_count()} cores\n"
    )
    print("| pass | PyTorch | jaxunlearn | ratio |\n|---|---|---|---|")
    for name in PASSES:
        theirs, ours = (statistics.median(run[name] for run in runs[side]) for side in ("torch", "jax"))
        print(f"| {name} | {theirs:.2f} s | {ours:.2f} s | {ours / theirs:.2f} |")
    peaks = {name: max(run["peak_mib"] for run in side_runs) for name, side_runs in runs.items()}
    print(
        f"| peak memory | {peaks['torch']:.0f} MiB | {peaks['jax']:.0f} MiB | {peaks['jax'] / peaks['torch']:.2f} |"
    )
    warm = statistics.median(run["round"] for run in runs["jax"])
    print(
        f"\nThe first round of jaxunlearn, with compilation: {first['jax']['round'] - warm:.1f} s more; of a second "
        f"start, with the persistent cache: {second_start['round'] - warm:.1f} s more."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
