"""What DAU's seconds go into: looking at the images, laying others over them, dividing them, an epoch of unlearning.

Command   python -m experiments.bench_dau
Hardware  whatever jax finds
Time      five minutes on two CPU cores
Expected  the medians in experiments/results/bench_dau.md; there is no published code to compare with

Images are random, of CIFAR-10's shape, and a tenth of them count as poisoned; time depends on neither.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments import side_by_side
from jaxunlearn import dau
from jaxunlearn._runtime import keep_compilations
from jaxunlearn.dau import algorithm
from jaxunlearn.models import named

CLASSES = 10


def parts(arch: str, images: int) -> dict[str, Callable[[], Any]]:
    """The stages by name, each as a function that runs it once."""
    spec = named(arch, CLASSES, (32, 32, 3))
    execution = dau.Execution()
    method = dau.make_method(spec.apply, execution, head=spec.head)
    (programs,) = method.step.args
    data = dau.Data(*side_by_side.images_and_labels(images, CLASSES)).for_loop(execution)
    state = method.init(spec.init(jax.random.key(0)), data, dau.Config(), jax.random.key(0))
    own = algorithm._view(programs, state.original, data)
    poisoned = jnp.arange(images) % 10 == 0
    divided = state._replace(
        parts=dau.Parts(poisoned, ~poisoned), scores=jnp.where(poisoned, -1.0, 1.0), round=jnp.asarray(1)
    )
    return {
        "looking at all images": lambda: algorithm._view(programs, state.original, data),
        "laying four others over each, in two ways": lambda: algorithm._superposed(programs, state, data),
        "dividing their features: directions, groups, discriminators": lambda: algorithm._divided(
            programs, state, data, own, poisoned
        ),
        "an epoch of unlearning": lambda: method.step(divided, data),
    }


def main() -> int:
    """Runs every stage a few times and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="small_vgg_half")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    flags = parser.parse_args()
    keep_compilations()
    print("| stage | seconds |\n|---|---|")
    for name, run in parts(flags.arch, flags.images).items():
        jax.block_until_ready(run())  # compiles
        taken = []
        for _ in range(flags.repeats):
            start = time.perf_counter()
            jax.block_until_ready(run())
            taken.append(time.perf_counter() - start)
        print(f"| {name} | {statistics.median(taken):.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
