"""Rounds of SAU (official settings) in plain PyTorch and in jaxunlearn, side by side.

Command   python -m experiments.bench_sau --checkpoint FILE --clean SPEC
Hardware  whatever jax finds; PyTorch gets the same device if it can use it
Time      about four minutes on two CPU cores
Expected  the ratios in experiments/results/bench_sau.md

Network, batches and number of steps are the same; tests/parity shows that the two compute the same numbers. How long a
search takes depends on how soon images are done: PyTorch leaves it when every image of the batch is, and jaxunlearn
looks at none that is done already. So the network should be one that has learned something, a small VGG for 32x32
images, and the images its own; without ``--checkpoint`` it is a fresh one that sees noise. PyTorch computes
the answers to clean images in every step, as the official code does. Every run is the next round on its side.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments import side_by_side

CLASSES = 10
TEXTS = {"checkpoint": "of a small VGG", "clean": "the images that it is unlearned with"}


def images_and_labels(flags: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """What both sides see."""
    from jaxunlearn.data import load

    if flags.checkpoint is None:
        return side_by_side.images_and_labels(flags.images, CLASSES)
    if flags.clean is None:
        raise SystemExit("--checkpoint is given without --clean; add the images that it is unlearned with.")
    clean = load(flags.clean).take(slice(flags.images))
    return np.asarray(clean.images), np.asarray(clean.labels)


def arrays_of(flags: argparse.Namespace) -> dict[str, np.ndarray] | None:
    """The checkpoint's, if there is one."""
    from converters import torch_io

    return dict(torch_io.read(Path(flags.checkpoint)).arrays) if flags.checkpoint else None


def torch_side(flags: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """Rounds in plain PyTorch."""
    import copy

    import torch

    from experiments import torch_ibau, torch_sau

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    arrays = arrays_of(flags)
    model = torch_ibau.SmallVGG(len(arrays["classifier.bias"]) if arrays else CLASSES).eval().to(device)
    if arrays:
        model.load_state_dict({name: torch.from_numpy(np.array(one)) for name, one in arrays.items()})
    reference = copy.deepcopy(model)
    data = images_and_labels(flags)
    batches = side_by_side.torch_batches(flags.images, CLASSES, flags.batch, device, data)
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
    """Rounds of jaxunlearn, as its users run it; the first call compiles."""
    import jax

    from converters import convert
    from jaxunlearn import sau
    from jaxunlearn.models import small_vgg

    arrays = arrays_of(flags)
    spec = small_vgg(CLASSES)
    spec, variables = convert.from_torch(arrays) if arrays else (spec, spec.init(jax.random.key(0)))
    config = dataclasses.replace(sau.PRESETS["reference"], batch_size=flags.batch)
    execution = sau.Execution()
    data = sau.Data(*images_and_labels(flags)).for_loop(execution)
    method = sau.make_method(spec.apply, execution)
    state: Any = method.init(variables, data, config, jax.random.key(0))

    def one_round() -> dict[str, float]:
        nonlocal state
        start = time.perf_counter()
        state, _ = method.step(state, data)
        jax.block_until_ready(state)
        return {"round": time.perf_counter() - start}

    return one_round


SIDES = {"torch": torch_side, "jax": jax_side}

if __name__ == "__main__":
    runs = {"images": 512, "batch": 256, "repeats": 5}
    sys.exit(side_by_side.main(__file__, __doc__, SIDES, ("round",), **runs, texts=TEXTS))
