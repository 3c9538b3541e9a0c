"""How fast convolutions alone can be on this CPU: every layer of the small VGG, in XLA and in PyTorch.

Command   python -m experiments.ceiling_cpu
Hardware  CPU only
Time      one minute
Expected  the second table of experiments/results/bench_ibau.md

F is the forward convolution, B its gradient in the input, W its gradient in the kernel. The last line of the table
is the sum over the six layers; a hypergradient with K = 5 has 7 F, 7 B and 3 W of it. The peak is measured
by a large matrix product of PyTorch.
"""

import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import torch

from jaxunlearn._runtime import compiler_options

BATCH = 100
LAYERS = ((32, 3, 32), (32, 32, 32), (16, 32, 64), (16, 64, 64), (8, 64, 128), (8, 128, 128))


def seconds(run: Callable[[], Any], repeats: int = 7) -> float:
    """Median time of a call, after a first one."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def xla_times(options: Any, side: int, inputs: int, outputs: int) -> list[float]:
    """F, B and W in XLA, compiled with these options."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (BATCH, side, side, inputs))
    kernel = jax.random.normal(keys[1], (3, 3, inputs, outputs))
    g = jax.random.normal(keys[2], (BATCH, side, side, outputs))

    def conv(x: Any, kernel: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    forward = jax.jit(conv, compiler_options=options)
    in_input = jax.jit(jax.vjp(lambda x: conv(x, kernel), x)[1], compiler_options=options)
    in_kernel = jax.jit(lambda x, g: jax.vjp(lambda k: conv(x, k), kernel)[1](g), compiler_options=options)
    return [
        seconds(lambda: forward(x, kernel).block_until_ready()),
        seconds(lambda: jax.block_until_ready(in_input(g))),
        seconds(lambda: jax.block_until_ready(in_kernel(x, g))),
    ]


def torch_times(side: int, inputs: int, outputs: int) -> list[float]:
    """F, B and W in PyTorch."""
    x, kernel = torch.randn(BATCH, inputs, side, side), torch.randn(outputs, inputs, 3, 3)
    g = torch.randn(BATCH, outputs, side, side)

    def backward(which: list[bool]) -> Callable[[], Any]:
        arguments = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [*which, False])
        return lambda: torch.ops.aten.convolution_backward(g, x, kernel, *arguments)

    return [
        seconds(lambda: torch.nn.functional.conv2d(x, kernel, padding=1)),
        seconds(backward([True, False])),
        seconds(backward([False, True])),
    ]


def main() -> int:
    """Prints the table."""
    size = 3000
    a = torch.randn(size, size)
    peak = 2 * size**3 / seconds(lambda: a @ a) / 1e9
    flops = [2 * 9 * BATCH * side**2 * inputs * outputs / 1e9 for side, inputs, outputs in LAYERS]
    print(
        f"{torch.get_num_threads()} threads; a matrix product reaches {peak:.0f} GFLOP/s; a pass over the layers has "
        f"{sum(flops):.2f} GFLOP"
    )
    print("| | F ms | B ms | W ms | F | B | W GFLOP/s |\n|---|---|---|---|---|---|---|")
    for name, measure in (
        ("XLA as it comes", functools.partial(xla_times, None)),
        ("XLA with our option", functools.partial(xla_times, compiler_options())),
        ("PyTorch", torch_times),
    ):
        sums = [sum(column) for column in zip(*(measure(*layer) for layer in LAYERS), strict=True)]
        cells = [f"{1e3 * total:.0f}" for total in sums] + [f"{sum(flops) / total:.0f}" for total in sums]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
