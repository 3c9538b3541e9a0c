"""One round of I-BAU (official settings) in plain PyTorch and in jaxunlearn, side by side.

Command   python -m experiments.bench_ibau
Hardware  whatever jax finds; PyTorch gets the same device if it can use it
Time      about three minutes on two CPU cores; ``--quick`` takes one
Expected  the table in experiments/results/bench_ibau.md

Network, batches, number of steps and K are the same; tests/parity shows that the two compute the same numbers.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from experiments import side_by_side

CLASSES = 10
PASSES = ("inner", "outer", "round")


def torch_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """A round in plain PyTorch."""
    import torch

    from experiments import torch_ibau

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = torch_ibau.SmallVGG(CLASSES).eval().to(device)
    batches = side_by_side.torch_batches(flags.images, CLASSES, flags.batch, device)
    first = torch.tensor([0], device=device)
    carries = [torch.zeros(len(b[1]), device=device).index_fill(0, first, 1.0) for b in batches]
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
    data = ibau.Data(*side_by_side.images_and_labels(flags.images, CLASSES)).for_loop(ibau.Execution())
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


SIDES = {"torch": torch_side, "jax": jax_side}


def main() -> int:
    """Runs both sides and prints the table."""
    parser = side_by_side.parser(__doc__, images=1000, batch=100, repeats=5)
    parser.add_argument("--solver-steps", type=int, default=5, help="K")
    parser.add_argument("--quick", action="store_true", help="300 images, two repeats")
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.side:
        side_by_side.serve(SIDES[flags.side], flags)
        return 0
    if flags.quick:
        flags.images, flags.repeats = 300, 2
    with tempfile.TemporaryDirectory() as cache:
        names = ("images", "batch", "solver_steps")
        passed_on = [f"--{name.replace('_', '-')}={getattr(flags, name)}" for name in names]
        passed_on.append(f"--cache={cache}")
        first, runs = side_by_side.take_turns(__file__, passed_on, flags.repeats)
        again = side_by_side.Side(__file__, "jax", passed_on)
        second_start = again.run()
        again.stop()
    print(
        f"{flags.images} images in batches of {flags.batch}, K = {flags.solver_steps}, "
        f"{flags.repeats} rounds each, {os.cpu_count()} cores\n"
    )
    side_by_side.print_table(PASSES, runs)
    warm = statistics.median(run["round"] for run in runs["jax"])
    print(
        f"\nThe first round of jaxunlearn, with compilation: {first['jax']['round'] - warm:.1f} s more; of a second "
        f"start, with the persistent cache: {second_start['round'] - warm:.1f} s more."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
