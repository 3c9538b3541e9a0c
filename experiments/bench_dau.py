"""What DAU does, in plain PyTorch and in jaxunlearn, side by side: features, the retrained last layer, unlearning.

Command   python -m experiments.bench_dau
Hardware  whatever jax finds; PyTorch gets the same device if it can use it
Time      five minutes on two CPU cores
Expected  the ratios in experiments/results/bench_dau.md

The features of the images of a run, in evaluation mode; eighty steps of the last layer on ``FEATURES``, as many as
CIFAR-10 and a PreAct-ResNet18 give; and twenty steps of unlearning, of which a quarter of the images are poisoned.
Network, batches and number of steps are the same, without augmentation; tests/parity/test_plain_torch_dau.py shows that
the two compute the same numbers.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments import side_by_side

CLASSES = 10
FEATURES = (50_000, 512)
SUSPECTS = 2500
STEPS = 20  # of unlearning; no epoch has fewer
PASSES = ("features", "last layer", "unlearning")


def _features() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal(FEATURES, np.float32), rng.integers(0, CLASSES, FEATURES[0]).astype(np.int32)


def torch_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """The three passes in plain PyTorch."""
    import torch

    from experiments import torch_dau, torch_ibau

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = torch_ibau.SmallVGG(CLASSES).to(device)
    torch_dau.with_clean_statistics(model.features)
    looked_at = side_by_side.torch_batches(flags.images, CLASSES, 500, device)
    features, labels = (torch.from_numpy(array).to(device) for array in _features())
    head = torch.nn.Linear(FEATURES[1], CLASSES).to(device)
    some = flags.batch // 4
    rows = [(torch.randint(SUSPECTS, FEATURES[0], (flags.batch,)), torch.randint(SUSPECTS, (some,)))] * 80
    batches = [
        (*clean, *poisoned, torch.ones(some, device=device))
        for clean, poisoned in zip(
            side_by_side.torch_batches(STEPS * flags.batch, CLASSES, flags.batch, device),
            side_by_side.torch_batches(STEPS * some, CLASSES, some, device),
            strict=True,
        )
    ]
    optimizer = torch.optim.SGD(model.parameters(), 1e-6, 0.9, weight_decay=5e-4)

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def run() -> dict[str, float]:
        times = [now()]
        model.eval()
        with torch.no_grad():
            for images, _ in looked_at:
                model.features(images)
        times.append(now())
        torch_dau.retrain_head(
            head, features, labels.long(), rows, rate=1e-6, momentum=0.9, suspect_weight=1.0
        )
        times.append(now())
        torch_dau.unlearn(model, batches, optimizer, weight=1.0, clip=20.0)
        times.append(now())
        return dict(zip(PASSES, np.diff(times).tolist(), strict=True))

    return run


def jax_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """The same in jaxunlearn; the first call compiles."""
    import functools

    import jax
    import jax.numpy as jnp

    from jaxunlearn import dau
    from jaxunlearn.models import small_vgg

    spec = small_vgg(CLASSES)
    some = flags.batch // 4
    config = dataclasses.replace(dau.PRESETS["default"], batch_size=flags.batch, poisoned_batch_size=some)
    execution = dau.Execution()
    looked_at = dau.Data(*side_by_side.images_and_labels(flags.images, CLASSES)).for_loop(execution)
    data = dau.Data(*side_by_side.images_and_labels(STEPS * flags.batch, CLASSES)).for_loop(execution)
    poisoned = jnp.arange(STEPS * flags.batch) % 5 == 0
    method: Any = dau.make_method(spec.apply, execution, head=spec.head)
    start = method.init(spec.init(jax.random.key(0)), data, config, jax.random.key(0))
    start = start._replace(
        parts=dau.Parts(poisoned, ~poisoned), scores=jnp.where(poisoned, -1.0, 1.0), round=jnp.asarray(1)
    )
    features, labels = map(jnp.asarray, _features())
    head = dau.Head(jnp.zeros((FEATURES[1], CLASSES)), jnp.zeros(CLASSES))
    suspects = jnp.arange(FEATURES[0]) < SUSPECTS
    retrain = jax.jit(
        functools.partial(
            dau.discriminate,
            steps=80,
            batch_size=flags.batch,
            suspect_batch_size=some,
            rate=1e-6,
            momentum=0.9,
            weight_decay=0.0,
            suspect_weight=1.0,
        )
    )
    programs = method.step.args[0]

    def run() -> dict[str, float]:
        times = [time.perf_counter()]
        jax.block_until_ready(dau.algorithm._view(programs, start.original, looked_at))
        times.append(time.perf_counter())
        jax.block_until_ready(retrain(features, labels, suspects, head, jax.random.key(0)))
        times.append(time.perf_counter())
        jax.block_until_ready(method.step(start, data)[0].params)
        times.append(time.perf_counter())
        return dict(zip(PASSES, np.diff(times).tolist(), strict=True))

    return run


SIDES = {"torch": torch_side, "jax": jax_side}

if __name__ == "__main__":
    sys.exit(side_by_side.main(__file__, __doc__, SIDES, PASSES, images=2000, batch=256, repeats=5))
