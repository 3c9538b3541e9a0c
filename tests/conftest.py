"""Eight virtual devices, quick compilation that is kept, checks of the array annotations, and a shared victim."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

import tests.checker  # noqa: F401  # named in the hook


def pytest_configure(config: pytest.Config) -> None:
    """Tells XLA, before it is first used, how the tests want it.

    All but the slow ones compile much and compute little, so that code which is not optimised takes half the time.
    What one process has compiled the others find in pytest's cache, and so does the next run.
    """
    quick = "not slow" in config.option.markexpr
    os.environ["XLA_FLAGS"] = " ".join(
        [
            os.environ.get("XLA_FLAGS", ""),
            "--xla_force_host_platform_device_count=8",
            *(
                [
                    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
                    "--xla_cpu_use_fusion_emitters=false",
                    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
                ]
                if quick
                else []
            ),
        ]
    ).strip()
    assert config.cache is not None
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("xla")))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")


# Shapes and dtypes of every annotated argument and result are checked while the tests run.
_HOOK = install_import_hook(["jaxunlearn", "converters"], "tests.checker.check")

hypothesis.settings.register_profile("project", derandomize=True, deadline=None, max_examples=30)
hypothesis.settings.load_profile("project")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Published checkpoints and data, where they stand beside the checkout."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("the published checkpoints are not beside this checkout")
    return SHARED


@pytest.fixture(scope="module", autouse=True)
def _forget_programs() -> Iterator[None]:
    """Compiled programs of one file are of no use to the next, and take gigabytes together."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the demonstration, trained once for all worker processes."""
    from jaxunlearn import demo
    from jaxunlearn.display import make_display

    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "victim"
    made = folder / "backdoored.pth"  # appears whole; two workers at once write the same
    return made if made.exists() else demo.make_victim(folder, make_display(quiet=True)).ckpt
