"""Forward passes of the networks that the converters know, in PyTorch and as Flax twins, side by side.

Command   python -m experiments.bench_models
Hardware  whatever jax finds; PyTorch gets the same device if it can use it
Time      four minutes on two CPU cores; ``--names resnet18 vit_b_16`` takes others or some of them
Expected  the table in experiments/results/bench_models.json

Evaluation mode, random weights with running statistics that fit them, the same images. The two take turns, so that
a machine that gets slower slows both; reported are the medians, their ratio and the largest difference of the logits.
torchvision's definitions are used where it has the network, those of tests/torch_models.py elsewhere.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

SIZES = {"vit_b_16": 224}  # the others take any size
SIDE = 32
USUAL = (
    "small_vgg",
    "preact_resnet18",
    "resnet18_cifar",
    "resnet18",
    "resnet50",
    "vgg19_bn",
    "wide_resnet28_10",
    "densenet121",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_b3",
    "convnext_tiny",
)


def torch_side(network: Any, images: np.ndarray) -> Callable[[], np.ndarray]:
    """The forward pass in PyTorch."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = network.eval().to(device)
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device)

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return network(pixels).cpu().numpy()

    return forward


def jax_side(network: Any, images: np.ndarray) -> Callable[[], np.ndarray]:
    """The forward pass of the twin, as the program runs it."""
    from converters import convert
    from jaxunlearn._runtime import Compiled

    arrays = {key: value.detach().cpu().numpy() for key, value in network.state_dict().items()}
    spec, variables = convert.from_torch(arrays)
    variables, pixels = jax.tree.map(jnp.asarray, variables), jnp.asarray(images)
    apply = Compiled(lambda v, x: spec.apply(v, x, train=False)[0])
    return lambda: np.asarray(apply(variables, pixels))


def compare(network: Any, side: int, batch: int, repeats: int) -> dict[str, Any]:
    """Times both sides by turns."""
    images = np.random.default_rng(0).random((batch, side, side, 3), np.float32)
    theirs, ours = torch_side(network, images), jax_side(network, images)
    start = time.perf_counter()
    difference = float(np.abs(theirs() - ours()).max())
    compiled = time.perf_counter() - start
    times: dict[str, list[float]] = {"torch": [], "jax": []}
    for _ in range(repeats):
        for name, forward in (("torch", theirs), ("jax", ours)):
            start = time.perf_counter()
            forward()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "side": side,
        "batch": batch,
        "ratio": round(medians["jax"] / medians["torch"], 2),
        "torch_ms": round(1e3 * medians["torch"], 1),
        "jax_ms": round(1e3 * medians["jax"], 1),
        "first_call_s": round(compiled, 1),
        "largest_difference": difference,
    }


def main() -> int:
    """Compares what was asked for and prints a table."""
    import torch

    from experiments.torch_ibau import SmallVGG
    from tests.parity.test_models import FULL
    from tests.torch_models import calibrate

    networks = {"small_vgg": lambda: SmallVGG(10), **{name: make for name, (make, _) in FULL.items()}}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", nargs="+", choices=sorted(networks), default=list(USUAL))
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--side", type=int, help="of the images (default 32, and 224 for vit_b_16)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the table there as JSON")
    flags = parser.parse_args()
    torch.manual_seed(0)
    device = jax.devices()[0]
    table = {}
    print(f"{'network':20} {'side':>5} {'torch ms':>9} {'jax ms':>9} {'ratio':>6} {'difference':>11}")
    for name in flags.names:
        side = flags.side or SIZES.get(name, SIDE)
        row = compare(calibrate(networks[name](), side), side, flags.batch, flags.repeats)
        table[name] = row
        print(
            f"{name:20} {side:5} {row['torch_ms']:9} {row['jax_ms']:9} {row['ratio']:6} "
            f"{row['largest_difference']:11.1e}",
            flush=True,
        )
    if flags.out:
        facts = {"device": f"{device.platform} {device.device_kind}", "torch": torch.__version__}
        flags.out.write_text(
            json.dumps({**facts, "jax": jax.__version__, "networks": table}, indent=1) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
