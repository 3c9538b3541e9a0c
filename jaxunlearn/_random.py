"""Random numbers whose programs compile quickly."""

import math

import jax
from jax.typing import DTypeLike

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
