"""Convolutions, written in the way that the backend is fast at.

XLA:CPU gives a convolution to Eigen only if its axes are in one order, NHWC and HWIO. A pass of the compiler brings
others into that order, but it looks at the outermost computation alone: the derivatives of a convolution, whose axes
JAX names in another order, fall into a naive kernel inside ``scan``, ``while_loop``, ``map`` and ``cond``, a hundred
times slower. Here a convolution on CPU is a primitive whose transposes are convolutions in that order again, with the
transpositions of the arrays as operations of their own, so that derivatives of any order are fast anywhere.
"""

import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Activations: TypeAlias = Float[Array, "n _ _ _"]
"""What a network makes of images, NHWC."""

_AXES = ("NHWC", "HWIO", "NHWC")
_FEW_OUTPUTS = 4

_Pair: TypeAlias = tuple[int, int]


def convolve(
    x: Activations, kernel: Float[Array, "_ _ _ _"], stride: int, border: int, groups: int = 1
) -> Activations:
    """A convolution with a border of zeros; NHWC and HWIO.

    On CPU its derivatives are as fast inside loops as outside (see above), and two kinds, at which XLA is up to a
    hundred times slower than need be, are written in another way: a depthwise one as a sum of shifted products,
    and one of at most four outputs per channel as a product of matrices, without the taps that only ever see the border
    (``experiments/results/bench_models.md``). Results differ by rounding.

    Example:
      >>> convolve(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)), 2, 1)[0, ..., 0].tolist()
      [[4.0, 4.0], [4.0, 4.0]]
    """
    window, channels = kernel.shape[0], x.shape[-1]
    sides = tuple((side + 2 * border - window) // stride + 1 for side in x.shape[1:3])
    depthwise = groups == channels == kernel.shape[-1] and groups > 1
    small = groups == 1 and window > 1 and sides[0] * sides[1] <= _FEW_OUTPUTS
    on_cpu = jax.default_backend() == "cpu" and min(sides) > 0
    if on_cpu and (depthwise or small):
        padded = jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
        rows, columns = (
            _seeing_taps(window, stride, border, *both) for both in zip(x.shape[1:3], sides, strict=True)
        )
        taps = [(i, j) for i in rows for j in columns]
        spans = [(sides[0] - 1) * stride + 1, (sides[1] - 1) * stride + 1]
        seen = [padded[:, i : i + spans[0] : stride, j : j + spans[1] : stride] for i, j in taps]
        if depthwise:
            parts = (part * kernel[i, j, 0] for part, (i, j) in zip(seen, taps, strict=True))
            return functools.reduce(jnp.add, parts)
        flat = jnp.concatenate([kernel[i, j] for i, j in taps])
        return jnp.tensordot(jnp.concatenate(seen, axis=-1), flat, 1)
    strides, borders = (stride, stride), ((border, border), (border, border))
    if on_cpu and groups == 1:
        return _convolution.bind(x, kernel, how=_How(strides, borders))
    return jax.lax.conv_general_dilated(
        x, kernel, strides, borders, dimension_numbers=_AXES, feature_group_count=groups
    )


def _seeing_taps(window: int, stride: int, border: int, side: int, outputs: int) -> list[int]:
    """Which rows of a kernel see an input at all."""
    return [
        tap for tap in range(window) if any(0 <= tap - border + stride * out < side for out in range(outputs))
    ]


class _How(NamedTuple):
    """Rows first; ``gaps`` - 1 zeros stand between rows of the input, ``spread`` - 1 between those of the kernel."""

    strides: _Pair
    borders: tuple[_Pair, _Pair]
    gaps: _Pair = (1, 1)
    spread: _Pair = (1, 1)


def _plain(x: jax.Array, kernel: jax.Array, how: _How) -> jax.Array:
    """XLA's convolution."""
    strides, borders, gaps, spread = how
    return jax.lax.conv_general_dilated(
        x, kernel, strides, borders, lhs_dilation=gaps, rhs_dilation=spread, dimension_numbers=_AXES
    )


def _stretched(size: int, factor: int) -> int:
    """The size of an axis with ``factor`` - 1 zeros between its elements."""
    return (size - 1) * factor + 1


def _to_input(cotangent: jax.Array, x: Any, kernel: jax.Array, *, how: _How) -> jax.Array:
    """The transpose in the input, of which the shape is known: a convolution with the kernel turned round."""

    def border(axis: int) -> _Pair:
        before = _stretched(kernel.shape[axis], how.spread[axis]) - 1 - how.borders[axis][0]
        kept = _stretched(x.aval.shape[axis + 1], how.gaps[axis]) + how.borders[axis][0]
        return before, kept - _stretched(cotangent.shape[axis + 1], how.strides[axis])

    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    ours = _How(how.gaps, (border(0), border(1)), how.strides, how.spread)
    return _convolution.bind(cotangent, turned, how=ours)


def _to_kernel(cotangent: jax.Array, x: jax.Array, kernel: Any, *, how: _How) -> jax.Array:
    """The transpose in the kernel: images become channels, and the cotangent slides over the input."""

    def border(axis: int) -> _Pair:
        before = how.borders[axis][0]
        reach = _stretched(cotangent.shape[axis + 1], how.strides[axis]) - 1
        reach += _stretched(kernel.aval.shape[axis], how.spread[axis])
        return before, reach - _stretched(x.shape[axis + 1], how.gaps[axis]) - before

    ours = _How(how.spread, (border(0), border(1)), how.gaps, how.strides)
    by_channel, sliding = x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3)
    out = _convolution.bind(by_channel, sliding, how=ours)
    return out.transpose(1, 2, 0, 3)


def _batched(
    operands: tuple[jax.Array, jax.Array], axes: tuple[Any, Any], *, how: _How
) -> tuple[jax.Array, int]:
    """``vmap``: more images, or more kernels, or one pair after the other."""
    x, kernel = (
        operand if axis is None else jnp.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True)
    )
    if axes[1] is None:
        out = _convolution.bind(x.reshape(-1, *x.shape[2:]), kernel, how=how)
        return out.reshape(*x.shape[:2], *out.shape[1:]), 0
    if axes[0] is None:
        together = jnp.moveaxis(kernel, 0, 3)  # outputs of all kernels side by side
        out = _convolution.bind(x, together.reshape(*together.shape[:3], -1), how=how)
        return out.reshape(*out.shape[:3], *together.shape[3:]), 3
    return jax.lax.map(lambda pair: _convolution.bind(*pair, how=how), (x, kernel)), 0


def _shape(x: Any, kernel: Any, *, how: _How) -> jax.core.ShapedArray:
    strides, borders, gaps, spread = how

    def side(axis: int) -> int:
        room = _stretched(x.shape[axis + 1], gaps[axis]) + sum(borders[axis])
        return (room - _stretched(kernel.shape[axis], spread[axis])) // strides[axis] + 1

    return jax.core.ShapedArray((x.shape[0], side(0), side(1), kernel.shape[3]), x.dtype)


_convolution = Primitive("convolution_in_order")
_convolution.def_impl(jax.jit(_plain, static_argnames="how"))
_convolution.def_abstract_eval(_shape)
ad.defbilinear(_convolution, _to_input, _to_kernel)
batching.primitive_batchers[_convolution] = _batched
mlir.register_lowering(_convolution, mlir.lower_fun(_plain, multiple_results=False))
