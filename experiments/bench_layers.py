"""Single layers of the networks whose forward pass is slower than in PyTorch, side by side.

Command   python -m experiments.bench_layers
Hardware  two CPU cores; PyTorch and XLA take turns in one process
Time      a minute
Expected  the second table of experiments/results/bench_models.md

Batches of 100, float32. ``other`` is the same layer written in another way, where there is one: a 1x1 convolution as a
matrix product, a depthwise one as a sum of shifted products.
"""

import functools
import itertools
import operator
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jaxunlearn._runtime import Compiled

BATCH, REPEATS = 100, 9


class Layer(NamedTuple):
    """A convolution without bias, or a matrix product where the kernel has no side."""

    name: str
    side: int
    inputs: int
    outputs: int
    kernel: int
    groups: int = 1


LAYERS = (
    Layer("3x3, 64 channels, 32x32", 32, 64, 64, 3),
    Layer("3x3, 64 channels, 8x8", 8, 64, 64, 3),
    Layer("3x3, 256 channels, 2x2", 2, 256, 256, 3),
    Layer("3x3, 512 channels, 1x1", 1, 512, 512, 3),
    Layer("1x1, 256 to 64 channels, 8x8", 8, 256, 64, 1),
    Layer("1x1, 384 to 1536 channels, 2x2", 2, 384, 1536, 1),
    Layer("depthwise 3x3, 240 channels, 8x8", 8, 240, 240, 3, 240),
    Layer("depthwise 5x5, 480 channels, 2x2", 2, 480, 480, 5, 480),
    Layer("depthwise 7x7, 96 channels, 8x8", 8, 96, 96, 7, 96),
    Layer("depthwise 7x7, 384 channels, 2x2", 2, 384, 384, 7, 384),
    Layer("linear, 25088 to 4096", 1, 25088, 4096, 0),
)


def torch_forward(layer: Layer, x: np.ndarray, kernel: np.ndarray) -> Callable[[], Any]:
    """The layer in PyTorch."""
    images, weight = torch.from_numpy(x), torch.from_numpy(kernel)
    if layer.kernel == 0:
        return lambda: torch.nn.functional.linear(images, weight)
    images = images.permute(0, 3, 1, 2).contiguous()
    weight = weight.permute(3, 2, 0, 1).contiguous()
    return lambda: torch.nn.functional.conv2d(images, weight, padding=layer.kernel // 2, groups=layer.groups)


def xla_forward(layer: Layer, x: np.ndarray, kernel: np.ndarray) -> Callable[[], Any]:
    """The layer as the twins have it."""
    if layer.kernel == 0:
        return _timed(lambda a, w: a @ w.T, x, kernel)
    return _timed(
        lambda a, w: jax.lax.conv_general_dilated(
            a,
            w,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=layer.groups,
        ),
        x,
        kernel,
    )


def other_forward(layer: Layer, x: np.ndarray, kernel: np.ndarray) -> Callable[[], Any] | None:
    """The layer written in another way."""
    if layer.kernel == 1:
        return _timed(lambda a, w: jnp.einsum("nhwi,io->nhwo", a, w[0, 0]), x, kernel)
    if layer.groups == 1:
        return None
    side, reach = layer.side, layer.kernel // 2

    def shifted(a: jax.Array, w: jax.Array) -> jax.Array:
        padded = jnp.pad(a, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
        places = itertools.product(range(layer.kernel), repeat=2)
        parts = (padded[:, i : i + side, j : j + side] * w[i, j, 0] for i, j in places)
        return functools.reduce(operator.add, parts)

    return _timed(shifted, x, kernel)


def _timed(fun: Callable[..., jax.Array], *arrays: np.ndarray) -> Callable[[], Any]:
    compiled, given = Compiled(fun), [jnp.asarray(array) for array in arrays]
    return lambda: jax.block_until_ready(compiled(*given))


def main() -> int:
    """Prints the table."""
    rng = np.random.default_rng(0)
    print("| layer | PyTorch ms | XLA ms | ratio | other ms | ratio |\n|---|---|---|---|---|---|")
    for layer in LAYERS:
        if layer.kernel:
            x = rng.random((BATCH, layer.side, layer.side, layer.inputs), np.float32)
            kernel = rng.random(
                (layer.kernel, layer.kernel, layer.inputs // layer.groups, layer.outputs), np.float32
            )
        else:
            x, kernel = (
                rng.random(shape, np.float32)
                for shape in ((BATCH, layer.inputs), (layer.outputs, layer.inputs))
            )
        forwards = [make(layer, x, kernel) for make in (torch_forward, xla_forward, other_forward)]
        times: list[list[float]] = [[], [], []]
        for _ in range(REPEATS + 1):
            for forward, seconds in zip(forwards, times, strict=True):
                if forward is not None:
                    start = time.perf_counter()
                    forward()
                    seconds.append(time.perf_counter() - start)
        theirs, ours, *other = (1e3 * statistics.median(seconds[1:]) for seconds in times if seconds)
        cells = [f"{theirs:.2f}", f"{ours:.2f}", f"{ours / theirs:.2f}"]
        cells += [f"{other[0]:.2f}", f"{other[0] / theirs:.2f}"] if other else ["", ""]
        print(f"| {layer.name} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
