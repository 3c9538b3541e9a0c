"""A round of SAU (official settings) in plain PyTorch and in jaxunlearn, side by side.

Command   python -m experiments.bench_sau
Hardware  whatever jax finds; PyTorch gets the same device if it can use it
Time      about four minutes on two CPU cores
Expected  the ratios in experiments/results/bench_sau.md

Network, batches and number of steps are the same; tests/parity shows that the two compute the same numbers. PyTorch
leaves a search as soon as every image of the batch is done, and computes the answers to clean images in
every step, as the official code does.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable

from experiments import side_by_side

CLASSES = 10


def torch_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """A round in plain PyTorch."""
    import copy

    import torch

    from experiments import torch_ibau, torch_sau

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = torch_ibau.SmallVGG(CLASSES).eval().to(device)
    reference = copy.deepcopy(model)
    batches = side_by_side.torch_batches(flags.images, CLASSES, flags.batch, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, amsgrad=True)

    def one_round() -> dict[str, float]:
        start = time.perf_counter()
        for images, labels in batches:
            torch_sau.unlearn_batch(model, reference, optimizer, images, labels)
        if device == "cuda":
            torch.cuda.synchronize()
        return {"round": time.perf_counter() - start}

    return one_round


def jax_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """A round of jaxunlearn, as its users run it; the first call compiles."""
    import jax

    from jaxunlearn import sau
    from jaxunlearn.models import small_vgg

    spec = small_vgg(CLASSES)
    config = dataclasses.replace(sau.PRESETS["reference"], batch_size=flags.batch)
    data = sau.Data(*side_by_side.images_and_labels(flags.images, CLASSES))
    method = sau.make_method(spec.apply, sau.Execution())
    state = method.init(spec.init(jax.random.key(0)), data, config, jax.random.key(0))

    def one_round() -> dict[str, float]:
        start = time.perf_counter()
        jax.block_until_ready(method.step(state, data))
        return {"round": time.perf_counter() - start}

    return one_round


SIDES = {"torch": torch_side, "jax": jax_side}

if __name__ == "__main__":
    sys.exit(side_by_side.main(__file__, __doc__, SIDES, ("round",), images=512, batch=256, repeats=5))
