"""Layers that compute what their PyTorch namesakes compute, in NHWC."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Conv(nn.Module):
    """A 3x3 convolution with stride 1 and a border of zeros, like ``torch.nn.Conv2d(..., 3, padding=1)``.

    Attributes:
      features: output channels.
    """

    features: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n h w c"],
        scale: Float[Array, " d"] | float = 1.0,
        shift: Float[Array, " d"] | float = 0.0,
    ) -> Float[Array, "n h w d"]:
        """scale * conv(x) + shift, where the scale goes into the kernel and not over the activations."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), x.dtype)
        out = jax.lax.conv_general_dilated(
            x, kernel * scale, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return out + (bias * scale + shift)


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

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Training: normalises over all axes but the last and moves the running statistics."""
        axes = tuple(range(x.ndim - 1))
        count = x.size // self.channels
        mean, var = jnp.mean(x, axes), jnp.var(x, axes)
        if not self.is_initializing():
            unbiased = var * (count / max(count - 1, 1))
            self.mean.value = (1 - self.momentum) * self.mean.value + self.momentum * mean
            self.var.value = (1 - self.momentum) * self.var.value + self.momentum * unbiased
        return (x - mean) * (self.scale * jax.lax.rsqrt(var + self.eps)) + self.bias


def conv_norm(
    conv: Conv, norm: BatchNorm, x: Float[Array, "n h w c"], *, train: bool
) -> Float[Array, "n h w d"]:
    """A convolution and its normalisation.

    In evaluation the normalisation goes into the kernel: one pass over the activations less in every forward,
    backward and second-order product, and one reduction instead of three in the gradient of the parameters.
    """
    return norm(conv(x)) if train else conv(x, *norm.affine())


def max_pool_2x2(x: Float[Array, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
    """Maximum over 2x2 windows with stride 2; an odd last row or column is dropped.

    The gradient goes to the first of tied elements in row-major order, as PyTorch's does: saturated
    pixels tie, and splitting the gradient moves a perturbation by percents. A chain of selections
    rather than ``lax.reduce_window``, because its derivatives fuse with their neighbours: on CPU a whole
    hypergradient takes 15 % less time and a third less memory.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    best = x[:, ::2, ::2]
    for other in (x[:, ::2, 1::2], x[:, 1::2, ::2], x[:, 1::2, 1::2]):
        best = jnp.where(other > best, other, best)
    return best


def flatten_chw(x: Float[Array, "n h w c"]) -> Float[Array, "n d"]:
    """Flattens in PyTorch's order (channel, row, column), so that the next weight needs no permutation."""
    return jnp.transpose(x, (0, 3, 1, 2)).reshape(x.shape[0], -1)
