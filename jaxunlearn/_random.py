"""Random numbers that are drawn, or whose programs compile, quickly."""

import math

import jax
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Int

from jaxunlearn._typing import Number, PRNGKey


def uniform(
    key: PRNGKey, shape: tuple[int, ...], dtype: DTypeLike = float, low: Number = 0.0, high: Number = 1.0
) -> jax.Array:
    """``jax.random.uniform``, drawn flat: the same numbers.

    XLA:CPU unrolls the loops over short axes, such as those of a kernel or a picture's channels, and compiles up to six
    times as long.

    Example:
      >>> key, shape = jax.random.key(0), (3, 3, 2, 4)
      >>> bool((uniform(key, shape, low=-1) == jax.random.uniform(key, shape, minval=-1)).all())
      True
    """
    return jax.random.uniform(key, (math.prod(shape),), dtype, low, high).reshape(shape)


def draw_rows(key: PRNGKey, count: int, size: int) -> Int[np.ndarray, " size"]:
    """Different rows of ``count``, in random order, drawn on the host.

    ``jax.random.choice`` shuffles all rows for that: 40 ms for 128 of 49 000 on a CPU core, as long as a small
    network's step.

    Example:
      >>> rows = draw_rows(jax.random.key(0), 100, 3)
      >>> rows.shape, len(set(rows.tolist()))
      ((3,), 3)
    """
    words = np.asarray(jax.random.key_data(key)).ravel()
    return np.random.default_rng(words).choice(count, size, replace=False)
