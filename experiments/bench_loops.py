"""The gradient of a small VGG outside a loop, inside one, and of several models at once, with two convolutions.

Command   python -m experiments.bench_loops
Hardware  CPU only: elsewhere the two are the same
Time      two minutes on two cores
Expected  the table in experiments/results/bench_loops.md

``XLA's own`` is ``jax.lax.conv_general_dilated``, whose derivatives have another order of axes; ``ours`` is
``jaxunlearn.models.convolve``. All programs take turns, and the times are medians, each per gradient.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from jaxunlearn._runtime import Compiled
from jaxunlearn.losses import mean_cross_entropy
from jaxunlearn.models import convolve, layers, small_vgg

IMAGES, STEPS, MODELS, REPEATS = 32, 2, 4, 5
SPEC = small_vgg(10)


def lax_convolve(x: jax.Array, kernel: jax.Array, stride: int, border: int, groups: int = 1) -> jax.Array:
    """XLA's own."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((border, border), (border, border)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def programs() -> dict[str, tuple[Callable[[], Any], int]]:
    """What is timed, and how many gradients each call of it has."""
    images = jax.random.uniform(jax.random.key(0), (IMAGES, *SPEC.image_shape))
    labels, mask = jnp.arange(IMAGES) % 10, jnp.ones(IMAGES, bool)
    stacked = jax.vmap(SPEC.init)(jax.random.split(jax.random.key(1), MODELS))
    variables = jax.tree.map(lambda leaf: leaf[0], stacked)

    def gradient(variables: Any, images: jax.Array) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            logits, _ = SPEC.apply({**variables, "params": params}, images, train=False)
            return mean_cross_entropy(logits, labels, mask)

        return {**variables, "params": jax.grad(loss_fn)(variables["params"])}

    def descend(variables: Any, _: None) -> tuple[Any, None]:
        params = jax.tree.map(
            lambda p, g: p - 0.01 * g, variables["params"], gradient(variables, images)["params"]
        )
        return {**variables, "params": params}, None

    one = Compiled(gradient)
    scan = Compiled(lambda variables: jax.lax.scan(descend, variables, length=STEPS)[0])
    many = Compiled(jax.vmap(gradient, in_axes=(0, None)))
    return {
        "outside a loop": (lambda: one(variables, images), 1),
        "in a scan": (lambda: scan(variables), STEPS),
        f"{MODELS} models at once": (lambda: many(stacked, images), MODELS),
    }


def main() -> int:
    """Prints the table."""
    sides: dict[str, dict[str, tuple[Callable[[], Any], int]]] = {}
    for name, form in (("XLA's own", lax_convolve), ("ours", convolve)):
        with mock.patch.object(layers, "convolve", form):
            sides[name] = programs()
            for run, _ in sides[name].values():
                jax.block_until_ready(run())
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(REPEATS):
        for name, side in sides.items():
            for what, (run, gradients) in side.items():
                start = time.perf_counter()
                jax.block_until_ready(run())
                times.setdefault((name, what), []).append((time.perf_counter() - start) / gradients)
    print(f"| gradient of {IMAGES} images | {' | '.join(sides)} | ratio |\n|---|---|---|---|")
    for what in sides["ours"]:
        theirs, ours = (1e3 * statistics.median(times[name, what]) for name in sides)
        print(f"| {what} | {theirs:.0f} ms | {ours:.0f} ms | {ours / theirs:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
