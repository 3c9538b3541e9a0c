"""Layers that compute what their PyTorch namesakes compute, in NHWC.

Submodules of the networks carry the names that they have in PyTorch, dots included: the name of a leaf then
is its key in a state dict, and the converters need no table.
"""

import functools
import math
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxunlearn._check import InputError
from jaxunlearn._typing import Images, PRNGKey
from jaxunlearn.models.convolution import Activations, convolve

Answer: TypeAlias = tuple[Float[Array, "n classes"], Float[Array, "n d"]]
"""Logits, and the features that the last linear layer reads."""


def _kaiming_normal(key: PRNGKey, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Of a kernel; drawn as a matrix of the same fan, which gives the same numbers and compiles in a fifth of the time.

    XLA:CPU unrolls the loops over short axes (``jaxunlearn._random``).
    """
    matrix = math.prod(shape[:-1]), shape[-1]
    return nn.initializers.kaiming_normal()(key, matrix, dtype).reshape(shape)


class Conv(nn.Module):
    """A convolution with a border of zeros, like ``torch.nn.Conv2d``.

    Attributes:
      features: output channels.
      window: side of the kernel.
      stride: of the window.
      padding: zeros on every side; None keeps the size at stride 1.
      groups: that the channels are divided into; as many as channels make it depthwise.
      use_bias: whether there is a bias.
    """

    features: int
    window: int = 3
    stride: int = 1
    padding: int | None = None
    groups: int = 1
    use_bias: bool = False

    @nn.compact
    def __call__(
        self,
        x: Images,
        scale: Float[Array, " d"] | float = 1.0,
        shift: Float[Array, " d"] | float = 0.0,
    ) -> Activations:
        """scale * conv(x) + shift, where the scale goes into the kernel and not over the activations."""
        shape = (self.window, self.window, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", _kaiming_normal, shape, x.dtype)
        border = self.window // 2 if self.padding is None else self.padding
        out = convolve(jnp.asarray(x), kernel * scale, self.stride, border, self.groups)
        if self.use_bias:
            shift = self.param("bias", nn.initializers.zeros, (self.features,), x.dtype) * scale + shift
        return out + shift


class BatchNorm(nn.Module):
    """Batch normalisation with PyTorch's statistics.

    Evaluation: y = (x - mean) / sqrt(var + eps) * scale + bias with the running statistics. Training: the
    batch's mean and biased variance, and the running variance moves towards the *unbiased* one
    (``torch.nn.BatchNorm2d``), which Flax's own layer does not do.

    Attributes:
      channels: of the input.
      momentum: weight of the new statistics (PyTorch's convention; Flax's is one minus this).
      eps: added to the variance.
    """

    channels: int
    momentum: float = 0.1
    eps: float = 1e-5

    def setup(self) -> None:
        """Declares parameters and running statistics."""
        shape = (self.channels,)
        self.scale = self.param("scale", nn.initializers.ones, shape)
        self.bias = self.param("bias", nn.initializers.zeros, shape)
        self.mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        self.var = self.variable("batch_stats", "var", jnp.ones, shape)

    def affine(self) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """What evaluation amounts to: y = scale * x + shift."""
        scale = self.scale * jax.lax.rsqrt(self.var.value + self.eps)
        return scale, self.bias - self.mean.value * scale

    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h w c"]:
        """Normalises over all axes but the last; training moves the running statistics."""
        if not train:
            scale, shift = self.affine()
            return x * scale + shift
        axes = tuple(range(x.ndim - 1))
        count = x.size // self.channels
        mean, var = jnp.mean(x, axes), jnp.var(x, axes)
        if not self.is_initializing():
            unbiased = var * (count / max(count - 1, 1))
            self.mean.value = (1 - self.momentum) * self.mean.value + self.momentum * mean
            self.var.value = (1 - self.momentum) * self.var.value + self.momentum * unbiased
        return (x - mean) * (self.scale * jax.lax.rsqrt(var + self.eps)) + self.bias


def conv_norm(conv: Conv, norm: BatchNorm, x: Images, *, train: bool) -> Activations:
    """A convolution and its normalisation.

    In evaluation the normalisation goes into the kernel: one pass over the activations less in every forward,
    backward and second-order product, and one reduction instead of three in the gradient of the parameters.
    """
    return norm(conv(x), train=True) if train else conv(x, *norm.affine())


class StochasticDepth(nn.Module):
    """Leaves a residual branch out of whole images while training, and scales up where it stays.

    Attributes:
      rate: share of the images that go without.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."], *, train: bool) -> Float[Array, "n ..."]:
        """The branch, thinned out when training (``torchvision.ops.StochasticDepth``, row mode)."""
        every_axis_but_the_first = tuple(range(1, x.ndim))
        return nn.Dropout(self.rate, broadcast_dims=every_axis_but_the_first, deterministic=not train)(x)


def layer_norm(name: str) -> nn.LayerNorm:
    """Layer normalisation over the channels as vision transformers have it: eps 1e-6, two-pass variance."""
    return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, name=name)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact GELU, PyTorch's default; JAX's default is an approximation."""
    return nn.gelu(x, approximate=False)


def max_pool(
    x: Float[Array, "n h w c"], window: int = 2, stride: int = 2, padding: int = 0
) -> Float[Array, "n h2 w2 c"]:
    """Maximum over square windows; rows and columns that fill no window are dropped.

    The gradient goes to the first of tied elements in row-major order, as PyTorch's does: saturated
    pixels tie, and splitting the gradient moves a perturbation by percents. A chain of selections
    rather than ``lax.reduce_window``, because its derivatives fuse with their neighbours: on CPU a whole
    hypergradient takes 15 % less time and a third less memory. Windows that do not overlap are axes of their own,
    since the derivative of a strided slice would be a scatter (a fifth of a small VGG's input gradient).
    """

    def first(elements: list[jax.Array]) -> jax.Array:
        return functools.reduce(lambda best, other: jnp.where(other > best, other, best), elements)

    if window == stride and padding == 0:
        rows, columns = (side // stride for side in x.shape[1:3])
        cut = x[:, : rows * stride, : columns * stride]
        windows = cut.reshape(len(x), rows, stride, columns, stride, x.shape[3])
        of_rows = first([windows[:, :, :, :, j] for j in range(stride)])
        return first([of_rows[:, :, i] for i in range(stride)])
    border = (padding, padding)
    x = jnp.pad(x, ((0, 0), border, border, (0, 0)), constant_values=-jnp.inf)
    height, width = ((side - window) // stride * stride + 1 for side in x.shape[1:3])
    starts = [(row, column) for row in range(window) for column in range(window)]
    elements = [x[:, i : i + height : stride, j : j + width : stride] for i, j in starts]
    return first(elements)


def avg_pool_2x2(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """Mean over 2x2 windows with stride 2; an odd last row or column is dropped."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    return x.reshape(x.shape[0], height // 2, 2, width // 2, 2, x.shape[3]).mean((2, 4))


def global_avg_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """The mean over the picture.

    Raises:
      InputError: if the layers before have left nothing of it.
    """
    _check_left(x)
    return x.mean((1, 2))


def _check_left(x: Float[Array, "n h w c"]) -> None:
    if 0 in x.shape[1:3]:
        raise InputError(
            "The images are too small for this network, whose windows and strides leave nothing of them; bring them to "
            "a larger size with --size N, such as 32, or take another network."
        )


def adaptive_avg_pool(x: Float[Array, "n h w c"], side: int) -> Float[Array, "n {side} {side} c"]:
    """Means over side x side windows that cover the input evenly (``torch.nn.AdaptiveAvgPool2d``).

    Window i of m over n elements reaches from floor(i n / m) to ceil((i + 1) n / m); a small input is enlarged.

    Raises:
      InputError: if the layers before have left nothing of the picture.
    """
    _check_left(x)
    if x.shape[1:3] == (side, side):
        return x
    if side == 1:
        return x.mean((1, 2), keepdims=True)
    rows, columns = (jnp.asarray(_pooling_matrix(length, side), x.dtype) for length in x.shape[1:3])
    return jnp.einsum("nhwc,ih,jw->nijc", x, rows, columns)


def _pooling_matrix(length: int, side: int) -> np.ndarray:
    matrix = np.zeros((side, length))
    for i in range(side):
        start, stop = i * length // side, -(-(i + 1) * length // side)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def flatten_chw(x: Float[Array, "n h w c"]) -> Float[Array, "n d"]:
    """Flattens in PyTorch's order (channel, row, column), so that the next weight needs no permutation."""
    return jnp.transpose(x, (0, 3, 1, 2)).reshape(x.shape[0], -1)
