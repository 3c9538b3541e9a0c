"""Whether a difference between a network and its twin is rounding: both in float32 and in float64.

Command   python -m experiments.precision resnet50 efficientnet_b0 efficientnet_b3 convnext_tiny
Hardware  two CPU cores
Time      a minute
Expected  the first table of experiments/results/bench_models.md

Sixteen images of noise, random weights with running statistics that fit them. ``exact`` is PyTorch in float64.
"""

import argparse
import sys

import jax
import jax.numpy as jnp
import numpy as np
import torch

from converters import convert
from tests.parity.test_models import FULL
from tests.torch_models import calibrate

SIDE = 32


def differences(name: str) -> list[float]:
    """The largest logit, and the largest differences from exact ones: PyTorch's, the twin's, the twin's in float64."""
    torch.manual_seed(0)
    network = calibrate(FULL[name][0](), SIDE)
    images = np.random.default_rng(0).random((16, SIDE, SIDE, 3), np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    arrays = {key: value.detach().numpy().copy() for key, value in network.state_dict().items()}
    spec, variables = convert.from_torch(arrays)
    with torch.inference_mode():
        theirs = network(pixels).numpy()
        exact = network.double()(pixels.double()).numpy()
    apply = jax.jit(lambda v, x: spec.apply(v, x, train=False)[0])

    def ours(dtype: type) -> np.ndarray:
        floating = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, dtype if np.issubdtype(leaf.dtype, np.floating) else None),
            variables,
        )
        return np.asarray(apply(floating, jnp.asarray(images, dtype)))

    found = (theirs, ours(jnp.float32), ours(jnp.float64))
    return [float(np.abs(exact).max()), *(float(np.abs(logits - exact).max()) for logits in found)]


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=sorted(FULL), metavar="NAME")
    print(
        "| network | largest logit | PyTorch, float32 | twin, float32 | twin, float64 |\n|---|---|---|---|---|"
    )
    with jax.enable_x64(True):
        for name in parser.parse_args().names:
            print(f"| {name} | {' | '.join(f'{value:.1e}' for value in differences(name))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
