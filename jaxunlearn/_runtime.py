"""How compiled functions run here: what XLA is told, and where compilations are kept.

Results do not depend on anything in this module beyond rounding.
"""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, primitives

# XLA:CPU gives convolutions to YNNPACK, which runs those of fewer than 128 output channels on a single
# thread. Naming only dots leaves the convolutions to Eigen: those of the small VGG then take 0.5 to 0.7 of
# their time on two cores, and a whole hypergradient 0.6 to 0.85 (experiments/results/bench_ibau.md).
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}

# NHWC, HWIO, NHWC as positions: batch and channels, then rows and columns; outputs and inputs of the kernel first.
_IN_ORDER = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


@functools.cache
def compiler_options() -> dict[str, Any] | None:
    """Options for compiling on the default backend, where this version of XLA knows them."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=_CPU_OPTIONS).lower().compile()
    except Exception:  # another jaxlib may know neither the name nor the value; the defaults work
        return None
    return _CPU_OPTIONS


def slow_in_loops(fun: Callable[..., Any], *args: Any) -> bool:
    """Whether a program would be far slower inside a loop or a condition than outside.

    XLA:CPU brings the axes of convolutions into the order that its kernels need in the outermost computation only;
    elsewhere those with another order, such as JAX's derivatives of convolutions, take a hundred times as long.
    ``jaxunlearn.models.convolve`` avoids them.

    Example:
      >>> import jax.numpy as jnp
      >>> conv = lambda x: jax.lax.conv(x, jnp.ones((1, 1, 3, 3)), (1, 1), "SAME").sum()  # NCHW
      >>> slow_in_loops(conv, jnp.ones((1, 1, 8, 8))) == (jax.default_backend() == "cpu")
      True
    """
    if jax.default_backend() != "cpu":
        return False
    return any(
        equation.primitive is primitives.conv_general_dilated_p
        and tuple(equation.params["dimension_numbers"]) != _IN_ORDER
        for equation in _equations(jax.make_jaxpr(fun)(*args).jaxpr)
    )


def _equations(jaxpr: Jaxpr) -> Iterator[Any]:
    """All of a program, those of its inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        inner = jax.tree.leaves(equation.params, is_leaf=lambda leaf: isinstance(leaf, Jaxpr | ClosedJaxpr))
        for part in inner:
            if isinstance(part, ClosedJaxpr):
                yield from _equations(part.jaxpr)
            elif isinstance(part, Jaxpr):
                yield from _equations(part)


class Compiled:
    """A function with its jitted form, compiled with ``compiler_options`` where that is possible.

    JAX accepts such options only at the outermost level, so a call that is being traced (by a surrounding
    ``jit``, ``vmap`` or ``grad``) uses a plain ``jit``.

    Attributes:
      fun: the function itself.
    """

    def __init__(self, fun: Callable[..., Any], *, static_argnums: tuple[int, ...] = ()) -> None:
        """Wraps ``fun``."""
        self.fun = fun
        self._static = static_argnums
        self._plain = jax.jit(fun, static_argnums=static_argnums)

    @functools.cached_property
    def _tuned(self) -> Callable[..., Any]:
        # Made on first use: asking for the backend any earlier would initialise it on import.
        return jax.jit(self.fun, static_argnums=self._static, compiler_options=compiler_options())

    def __call__(self, *args: Any) -> Any:
        """Calls the compiled function."""
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args))
        return (self._plain if traced else self._tuned)(*args)


def keep_compilations() -> None:
    """Keeps compiled programs between runs, in ``JAX_COMPILATION_CACHE_DIR`` or the user's cache folder."""
    if not jax.config.values.get("jax_compilation_cache_dir"):
        try:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        except RuntimeError:  # a user without a home keeps nothing
            return
        folder = base / "jaxunlearn" / "xla"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:  # nor does one whose home cannot be written
            return
        if not os.access(folder, os.W_OK):
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
