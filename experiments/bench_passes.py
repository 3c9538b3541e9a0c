"""What the steps of all methods are made of: passes through a small VGG in plain PyTorch and in JAX, side by side.

Command   python -m experiments.bench_passes
Hardware  whatever jax finds; PyTorch gets the same device if it can use it
Time      about a minute and a half on two CPU cores
Expected  the table in experiments/results/bench_fit.md

Timed are the forward pass, the gradient in the images (what attacks and searches take), and the gradient in the
parameters, in evaluation and in training mode, of one batch. ``experiments/ceiling_cpu.py`` times the convolutions
that are in them.
"""

import argparse
import sys
import time
from collections.abc import Callable

from experiments import side_by_side

CLASSES = 10
PASSES = ("forward", "gradient in images", "gradient in parameters", "the same in training mode")


def _timed(passes: dict[str, Callable[[], object]]) -> dict[str, float]:
    seconds = {}
    for name, one in passes.items():
        start = time.perf_counter()
        one()
        seconds[name] = time.perf_counter() - start
    return seconds


def torch_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """The passes in plain PyTorch."""
    import torch

    from experiments import torch_ibau

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = torch_ibau.SmallVGG(CLASSES).to(device)
    ((images, labels),) = side_by_side.torch_batches(flags.images, CLASSES, flags.images, device)

    def synchronised(result: object) -> object:
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    def forward() -> object:
        with torch.no_grad():
            return synchronised(model.eval()(images))

    def in_images() -> object:
        shown = images.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model.eval()(shown), labels)
        return synchronised(torch.autograd.grad(loss, shown))

    def in_parameters(*, train: bool) -> object:
        loss = torch.nn.functional.cross_entropy(model.train(train)(images), labels)
        return synchronised(torch.autograd.grad(loss, list(model.parameters())))

    passes = (forward, in_images, lambda: in_parameters(train=False), lambda: in_parameters(train=True))
    return lambda: _timed(dict(zip(PASSES, passes, strict=True)))


def jax_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """The passes in JAX; the first call compiles."""
    import jax
    import jax.numpy as jnp

    from jaxunlearn._runtime import Compiled
    from jaxunlearn._training import training_forward
    from jaxunlearn.losses import mean_cross_entropy
    from jaxunlearn.models import small_vgg

    spec = small_vgg(CLASSES)
    variables = jax.tree.map(jnp.asarray, spec.init(jax.random.key(0)))
    images, labels = map(jnp.asarray, side_by_side.images_and_labels(flags.images, CLASSES))
    mask, key = jnp.ones(len(labels), bool), jax.random.key(1)

    def loss(params: object, images: jax.Array, *, train: bool = False) -> jax.Array:
        whole = {**variables, "params": params}
        if train:
            logits, _ = training_forward(spec.apply, whole, images, key)
        else:
            logits, _ = spec.apply(whole, images, train=False)
        return mean_cross_entropy(logits, labels, mask)

    programs = (
        Compiled(lambda params, images: spec.apply({**variables, "params": params}, images, train=False)[0]),
        Compiled(jax.grad(loss, argnums=1)),
        Compiled(jax.grad(loss)),
        Compiled(jax.grad(lambda params, images: loss(params, images, train=True))),
    )
    passes = [lambda one=one: jax.block_until_ready(one(variables["params"], images)) for one in programs]
    return lambda: _timed(dict(zip(PASSES, passes, strict=True)))


SIDES = {"torch": torch_side, "jax": jax_side}

if __name__ == "__main__":
    sys.exit(side_by_side.main(__file__, __doc__, SIDES, PASSES, images=256, batch=None, repeats=9))
