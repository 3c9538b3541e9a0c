"""Who may import whom, what is public, and how long an import takes."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Every module's layer; a module may import from its own layer and from those below. The table of the README.
LAYERS = {
    0: (
        "jaxunlearn._typing",
        "jaxunlearn._check",
        "jaxunlearn._tree",
        "jaxunlearn._files",
        "jaxunlearn._random",
        "jaxunlearn._runtime",
        "jaxunlearn._signals",
    ),
    1: (
        "jaxunlearn.losses",
        "jaxunlearn.metrics",
        "jaxunlearn.pixels",
        "jaxunlearn.attacks",
        "jaxunlearn._implicit",
        "jaxunlearn._optimizers",
        "jaxunlearn._training",
        "jaxunlearn._universal",
        "jaxunlearn._checkpointing",
        "jaxunlearn._distillation",
        "jaxunlearn.models",
        "jaxunlearn.data",
    ),
    2: (
        "jaxunlearn.evaluate",
        "jaxunlearn._loop",
        "jaxunlearn.preprocessing",
        "jaxunlearn.reactivation",
        "jaxunlearn.sweep",
    ),
    3: (
        "jaxunlearn.finetune",
        "jaxunlearn.fit",
        "jaxunlearn.ibau",
        "jaxunlearn.sau",
        "jaxunlearn.ulrl",
        "jaxunlearn.dau",
        "converters",
    ),
    4: (
        "jaxunlearn.inputs",
        "jaxunlearn.report",
        "jaxunlearn.evidence",
        "jaxunlearn.display",
        "jaxunlearn.job",
        "jaxunlearn.cli",
        "jaxunlearn.demo",
        "jaxunlearn.trainer",
        "jaxunlearn.subjects",
        "jaxunlearn.__main__",
        "jaxunlearn.attacks.__main__",
        "jaxunlearn.finetune.__main__",
        "jaxunlearn.ibau.__main__",
        "jaxunlearn.sau.__main__",
        "jaxunlearn.ulrl.__main__",
        "jaxunlearn.dau.__main__",
    ),
}
METHODS = ("jaxunlearn.dau", "jaxunlearn.finetune", "jaxunlearn.ibau", "jaxunlearn.sau", "jaxunlearn.ulrl")
# What else a family of modules must not know, beyond the order of the layers.
FORBIDDEN = {
    **dict.fromkeys(METHODS, ("jaxunlearn.models", "jaxunlearn.data", "converters", "flax", "torch")),
    "jaxunlearn._loop": ("jaxunlearn.models", "jaxunlearn.data", "flax", "torch"),
    "jaxunlearn.models": ("jaxunlearn.data", "jaxunlearn.attacks", "converters"),
    "jaxunlearn.data": ("jaxunlearn.models", "jaxunlearn.attacks", "jax", "flax"),
    "converters": (*METHODS, "jaxunlearn._loop", "jaxunlearn.data", "jaxunlearn.attacks"),
}
ONLY_IMPORTERS = {
    "jaxopt": ("jaxunlearn._implicit",),
    "torch": ("converters.torch_io", "converters.torch_weights"),
    "matplotlib": ("jaxunlearn.report",),
    "tensorflow_datasets": ("jaxunlearn.data.sources",),
}


def modules() -> dict[str, Path]:
    found = {}
    for package in ("jaxunlearn", "converters"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str) -> set[str]:
    """Everything that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def layer(name: str) -> int | None:
    """The layer of the longest name in the table that holds ``name``."""
    matches = [
        (len(entry), number) for number, names in LAYERS.items() for entry in names if within(name, entry)
    ]
    return max(matches)[1] if matches else None


@pytest.mark.parametrize("name", modules())
def test_imports_go_downwards(name: str) -> None:
    if name == "jaxunlearn":
        return  # re-exports everything public
    own = layer(name)
    assert own is not None, f"{name} is missing from the table of layers"
    for imported in imports(name):
        other = layer(imported)
        assert other is None or other <= own, f"{name} (layer {own}) imports {imported} (layer {other})"


@pytest.mark.parametrize("name", modules())
def test_nothing_imports_what_it_must_not_know(name: str) -> None:
    if name.endswith("__main__"):
        return
    for family, forbidden in FORBIDDEN.items():
        if within(name, family):
            wrong = [i for i in imports(name) for f in forbidden if within(i, f)]
            assert not wrong, f"{name} imports {wrong}"
    methods = [method for method in METHODS if not within(name, method)]
    if any(within(name, method) for method in METHODS):
        assert not [i for i in imports(name) for method in methods if within(i, method)]


@pytest.mark.parametrize("name", modules())
def test_each_library_has_few_importers(name: str) -> None:
    for library, only in ONLY_IMPORTERS.items():
        if name not in only:
            assert not [i for i in imports(name) if within(i, library)], f"{name} imports {library}"


def test_the_importers_are_real() -> None:
    for library, only in ONLY_IMPORTERS.items():
        for name in only:
            assert [i for i in imports(name) if within(i, library)], f"{name} does not import {library}"


def test_public_names_exist_and_importing_is_light() -> None:
    """One fresh process: the public names, and no heavy library behind them."""
    program = """
import sys, time
import jax, numpy, optax, jaxtyping
start = time.perf_counter()
import jaxunlearn
for name in jaxunlearn.__all__:
    getattr(jaxunlearn, name)
seconds = time.perf_counter() - start
heavy = {"flax", "torch", "tensorflow_datasets", "matplotlib", "sklearn", "pyarrow", "PIL"} & set(sys.modules)
assert not heavy, heavy
assert set(jaxunlearn.__all__) <= set(dir(jaxunlearn))
print(seconds)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 10  # well under one second on an idle machine; jaxopt is most of it
