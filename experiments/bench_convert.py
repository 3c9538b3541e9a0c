"""Reading and converting a ResNet-50 against torch.load of the same file.

Command   python -m experiments.bench_convert
Hardware  two CPU cores, the file in the system's cache
Time      ten seconds
Expected  a ratio of 1.7 to 1.9 (medians of paired runs), after imports and the one tracing of the network

Reading includes the screening of the file, and its hash in a second thread.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

REPEATS = 15


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes."""
    since = time.perf_counter()
    function()
    return time.perf_counter() - since


def main() -> int:
    """Times both sides by turns and prints the medians."""
    import torch

    from converters import convert, torch_io
    from tests.vision import models

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.pth"
        torch.save(models.resnet50().state_dict(), path)

        def ours() -> object:
            return convert.from_torch(torch_io.read(path).arrays)

        ours()
        pairs = [
            (seconds(lambda: torch.load(path, weights_only=True)), seconds(ours)) for _ in range(REPEATS)
        ]
    theirs, converted = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(own / load for load, own in pairs)
    print(f"torch.load {theirs:.0f} ms, read and converted {converted:.0f} ms, median ratio {ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
