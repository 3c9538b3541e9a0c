"""An epoch of both phases of ULRL (official settings) in plain PyTorch and in jaxunlearn, side by side.

Command   python -m experiments.bench_ulrl
Hardware  whatever jax finds; PyTorch gets the same device if it can use it
Time      about a minute on two CPU cores
Expected  the ratios in experiments/results/bench_ulrl.md

Network, batches and number of steps are the same, without augmentation; tests/parity shows that the two compute the
same numbers.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable

from experiments import side_by_side

CLASSES = 10
PASSES = ("unlearning", "relearning")


def torch_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """Both epochs in plain PyTorch."""
    import torch

    from experiments import torch_ibau, torch_ulrl

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = torch_ibau.SmallVGG(CLASSES).to(device)
    batches = side_by_side.torch_batches(flags.images, CLASSES, flags.batch, device)
    originals = model.classifier.weight.detach().clone()

    def wait() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def both() -> dict[str, float]:
        start = wait()
        torch_ulrl.unlearn(model, batches, rate=1e-6, clip=20.0)
        middle = wait()
        torch_ulrl.relearn(model, model.classifier, originals, [3], batches, rate=1e-6, penalty=0.7)
        return {"unlearning": middle - start, "relearning": wait() - middle}

    return both


def jax_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """Both epochs in jaxunlearn, as its users run them; the first call compiles."""
    import jax
    import jax.numpy as jnp

    from jaxunlearn import ulrl
    from jaxunlearn.models import small_vgg

    spec = small_vgg(CLASSES)
    config = dataclasses.replace(
        ulrl.PRESETS["reference"], batch_size=flags.batch, crop_padding=0, flip=False
    )
    execution = ulrl.Execution()
    data = ulrl.Data(*side_by_side.images_and_labels(flags.images, CLASSES)).for_loop(execution)
    method = ulrl.make_method(spec.apply, execution, head=spec.head)
    first = method.init(spec.init(jax.random.key(0)), data, config, jax.random.key(0))
    later = first._replace(round=jnp.asarray(config.unlearning_rounds))

    def both() -> dict[str, float]:
        times = [time.perf_counter()]
        for state in (first, later):
            jax.block_until_ready(method.step(state, data))
            times.append(time.perf_counter())
        return {"unlearning": times[1] - times[0], "relearning": times[2] - times[1]}

    return both


SIDES = {"torch": torch_side, "jax": jax_side}

if __name__ == "__main__":
    sys.exit(side_by_side.main(__file__, __doc__, SIDES, PASSES, images=512, batch=128, repeats=7))
