"""An epoch of training from scratch (SGD with Nesterov's momentum) in plain PyTorch and in jaxunlearn, side by side.

Command   python -m experiments.bench_fit
Hardware  whatever jax finds; PyTorch gets the same device if it can use it
Time      three and a half minutes on two CPU cores
Expected  the ratio in experiments/results/bench_fit.md

Network, batches and number of steps are the same, without augmentation; tests/parity/test_plain_torch_finetune.py shows
that the two compute the same numbers.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable

from experiments import side_by_side

CLASSES = 10


def torch_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """An epoch in plain PyTorch."""
    import torch

    from experiments import torch_ibau

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = torch_ibau.SmallVGG(CLASSES).to(device).train()
    batches = side_by_side.torch_batches(flags.images, CLASSES, flags.batch, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4, nesterov=True)

    def epoch() -> dict[str, float]:
        start = time.perf_counter()
        for images, labels in batches:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return {"epoch": time.perf_counter() - start}

    return epoch


def jax_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """An epoch in jaxunlearn, as its users run it; the first call compiles."""
    import jax

    from jaxunlearn import TRAINING, finetune
    from jaxunlearn.models import small_vgg

    spec = small_vgg(CLASSES)
    config = dataclasses.replace(TRAINING, batch_size=flags.batch)
    execution = finetune.Execution()
    data = finetune.Data(*side_by_side.images_and_labels(flags.images, CLASSES)).for_loop(execution)
    method = finetune.make_method(spec.apply, execution)
    state = method.init(spec.init(jax.random.key(0)), data, config, jax.random.key(0))

    def epoch() -> dict[str, float]:
        start = time.perf_counter()
        jax.block_until_ready(method.step(state, data))
        return {"epoch": time.perf_counter() - start}

    return epoch


SIDES = {"torch": torch_side, "jax": jax_side}

if __name__ == "__main__":
    sys.exit(side_by_side.main(__file__, __doc__, SIDES, ("epoch",), images=2560, batch=128, repeats=7))
