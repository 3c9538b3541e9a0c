"""What the benchmarks share: PyTorch and jaxunlearn as two processes that take turns.

Each side is a process of its own, so that memory and threads are its own; the two take turns, run by run, so that
a machine that gets slower slows both. Reported are the ratios of the medians.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Seconds = dict[str, float]
Start = Callable[[argparse.Namespace], Callable[[], Seconds]]
"""Makes the run of a side, which returns the seconds of its passes; the first run of a side may compile."""

SHAPE = (32, 32, 3)


def images_and_labels(count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise will do: the time of a convolution does not depend on what it sees."""
    rng = np.random.default_rng(0)
    return rng.random((count, *SHAPE), np.float32), rng.integers(0, classes, count).astype(np.int32)


def torch_batches(
    count: int, classes: int, batch: int, device: str, data: tuple[np.ndarray, np.ndarray] | None = None
) -> list[tuple[Any, Any]]:
    """The same, or other ``data``, in batches, as PyTorch has them."""
    import torch

    images, labels = data or images_and_labels(count, classes)
    return [
        (
            torch.from_numpy(images[i : i + batch].transpose(0, 3, 1, 2).copy()).to(device),
            torch.from_numpy(labels[i : i + batch]).long().to(device),
        )
        for i in range(0, len(labels), batch)
    ]


def main(
    script: str,
    description: str | None,
    sides: Mapping[str, Start],
    passes: Sequence[str],
    *,
    images: int,
    batch: int | None,
    repeats: int,
    texts: Mapping[str, str] | None = None,
) -> int:
    """Is a benchmark's program, and that of its sides: runs both and prints the table of its passes.

    Args:
      script: its path.
      description: its help.
      sides: how each of ``torch`` and ``jax`` is made.
      passes: names of what a run times.
      images: in a run, unless told otherwise.
      batch: images in a batch; None if all are one.
      repeats: timed runs of each side; the first is not timed.
      texts: further flags that both sides get, with their help.
    """
    made = parser(description, images, batch, repeats)
    for name, text in (texts or {}).items():
        made.add_argument(f"--{name}", help=text)
    flags = made.parse_args()
    if flags.side:
        serve(sides[flags.side], flags)
        return 0
    passed_on = [f"--images={flags.images}"] + ([f"--batch={flags.batch}"] if batch else [])
    passed_on += [f"--{name}={value}" for name in texts or () if (value := getattr(flags, name))]
    _, runs = take_turns(script, passed_on, flags.repeats)
    batches = f"batches of {flags.batch}" if batch else "one batch"
    print(f"{flags.images} images in {batches}, {flags.repeats} runs of each side\n")
    print_table(passes, runs)
    return 0


def parser(description: str | None, images: int, batch: int | None, repeats: int) -> argparse.ArgumentParser:
    """The flags that all benchmarks have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--images", type=int, default=images)
    if batch:
        made.add_argument("--batch", type=int, default=batch)
    made.add_argument("--repeats", type=int, default=repeats, help="runs of each side")
    made.add_argument("--side", choices=("torch", "jax"), help=argparse.SUPPRESS)
    return made


def serve(start: Start, flags: argparse.Namespace) -> None:
    """Is one side: makes a run for every line that comes in, and answers with its times."""
    one_run = start(flags)
    for _ in sys.stdin:
        seconds: dict[str, Any] = one_run()
        seconds["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(seconds), flush=True)


class Side:
    """One of the two processes."""

    def __init__(self, script: str, name: str, arguments: Sequence[str]) -> None:
        """Starts it."""
        command = [sys.executable, script, "--side", name, *arguments]
        # Of a script Python would search the folder alone.
        paths = [str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self) -> Seconds:
        """Lets it make one run."""
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        """Ends it."""
        self._process.communicate()


def take_turns(
    script: str, arguments: Sequence[str], repeats: int
) -> tuple[dict[str, Seconds], dict[str, list[Seconds]]]:
    """The first run of each side, and so many more by turns."""
    sides = {name: Side(script, name, arguments) for name in ("torch", "jax")}
    first = {name: side.run() for name, side in sides.items()}
    runs: dict[str, list[Seconds]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            runs[name].append(side.run())
    for side in sides.values():
        side.stop()
    return first, runs


def print_table(passes: Sequence[str], runs: Mapping[str, Sequence[Seconds]]) -> None:
    """Medians and their ratios."""
    print("| pass | PyTorch | jaxunlearn | ratio |\n|---|---|---|---|")
    for name in passes:
        theirs, ours = (statistics.median(run[name] for run in runs[side]) for side in ("torch", "jax"))
        print(f"| {name} | {theirs:.2f} s | {ours:.2f} s | {ours / theirs:.2f} |")
    theirs, ours = (max(run["peak_mib"] for run in runs[side]) for side in ("torch", "jax"))
    print(f"| peak memory | {theirs:.0f} MiB | {ours:.0f} MiB | {ours / theirs:.2f} |")
