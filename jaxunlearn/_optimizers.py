"""Optimizers by name, one of them in a form that optax does not have, and their learning rates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxunlearn._typing import Number, Round

OPTIMIZERS = ("adam", "amsgrad", "sgd")
DESCENTS = ("adamw", "sgd")
SCHEDULES = ("constant", "cosine", "onecycle")

_RISING, _FIRST = 0.3, 1 / 25  # of "onecycle": the share of rising steps, and where they begin


def direction(optimizer: str) -> optax.GradientTransformation:
    """Turns gradients into what a learning rate times is subtracted; ``amsgrad`` is PyTorch's."""
    return {"adam": optax.scale_by_adam, "amsgrad": scale_by_torch_amsgrad, "sgd": optax.identity}[
        optimizer
    ]()


def learning_rates(
    schedule: str, learning_rate: Number, now: Round, rounds: int, steps: int
) -> Float[Array, " steps"]:
    """The learning rate of every step of round ``now`` (from 0) of ``rounds``.

    ``cosine`` falls to zero along half a cosine. ``onecycle`` rises along half a cosine from a 25th of the rate for
    three tenths of all steps, and falls along another to nearly nothing.

    Example:
      >>> learning_rates("cosine", 1.0, jnp.asarray(1), 2, 2).round(3).tolist()
      [0.5, 0.14600001275539398]
    """
    rates = jnp.broadcast_to(learning_rate, (steps,))
    if schedule == "constant":
        return rates
    progress = (now * steps + jnp.arange(steps)) / float(rounds * steps)
    fall = 0.5 * (1 + jnp.cos(jnp.pi * progress))
    if schedule == "onecycle":
        rise = 0.5 * (1 - jnp.cos(jnp.pi * progress / _RISING))
        fall = 0.5 * (1 + jnp.cos(jnp.pi * (progress - _RISING) / (1 - _RISING)))
        return rates * jnp.where(progress < _RISING, _FIRST + (1 - _FIRST) * rise, fall).astype(rates.dtype)
    return rates * fall.astype(rates.dtype)


def momentum_step(
    params: PyTree,
    velocity: PyTree,
    gradient: PyTree,
    *,
    rate: Number,
    momentum: Number,
    weight_decay: Number = 0.0,
    nesterov: bool = False,
) -> tuple[PyTree, PyTree]:
    """One step of ``torch.optim.SGD``: the new parameters and velocity.

    d = g + weight_decay theta; velocity <- momentum velocity + d; theta <- theta - rate velocity, or, with
    Nesterov's momentum, theta - rate (d + momentum velocity).

    Example:
      >>> momentum_step({"w": 1.0}, {"w": 2.0}, {"w": 3.0}, rate=0.1, momentum=0.5)
      ({'w': 0.6}, {'w': 4.0})
    """
    directions = jax.tree.map(lambda g, p: g + weight_decay * p, gradient, params)
    velocity = jax.tree.map(lambda v, d: momentum * v + d, velocity, directions)
    taken = jax.tree.map(lambda d, v: d + momentum * v, directions, velocity) if nesterov else velocity
    return jax.tree.map(lambda p, step: p - rate * step, params, taken), velocity


def adamw_step(
    params: PyTree,
    moments: optax.OptState,
    gradient: PyTree,
    *,
    rate: Number,
    momentum: Number,
    weight_decay: Number,
    nesterov: bool = False,
) -> tuple[PyTree, optax.OptState]:
    """One step of ``torch.optim.AdamW``, or of NAdam with Nesterov's momentum: the new parameters and moments.

    theta <- theta - rate (m / (sqrt(v) + 1e-8) + weight_decay theta), with m and v the corrected running means of the
    gradient (of which ``momentum`` stays) and of its square (of which 0.999 stays).

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019; Dozat, 2016, for NAdam.

    Example:
      >>> params = {"w": jnp.array(1.0)}
      >>> moments = optax.scale_by_adam().init(params)
      >>> stepped, _ = adamw_step(params, moments, {"w": 3.0}, rate=0.1, momentum=0.9, weight_decay=0.0)
      >>> round(float(stepped["w"]), 3)
      0.9
    """
    directions, moments = optax.scale_by_adam(momentum, nesterov=nesterov).update(gradient, moments)
    return jax.tree.map(lambda p, d: p - rate * (d + weight_decay * p), params, directions), moments


def clipped(gradient: PyTree, longest: Number) -> PyTree:
    """The gradient, shortened to that l2 norm if it is longer, as ``torch.nn.utils.clip_grad_norm_`` does.

    Example:
      >>> round(float(clipped({"w": jnp.array([30.0, 40.0])}, 5.0)["w"][0]), 4)
      3.0
    """
    # Squares of half-precision numbers are soon more than the largest one.
    wide = jax.tree.map(lambda g: g.astype(jnp.promote_types(g.dtype, jnp.float32)), gradient)
    shrink = jnp.minimum(1, longest / (optax.tree.norm(wide) + 1e-6))
    return jax.tree.map(lambda g: shrink.astype(g.dtype) * g, gradient)


class _AMSGradState(NamedTuple):
    step: Int[Array, ""]
    mu: PyTree
    nu: PyTree
    nu_max: PyTree


def scale_by_torch_amsgrad(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """The direction of AMSGrad as ``torch.optim.Adam(amsgrad=True)`` computes it.

    The maximum runs over the *uncorrected* second moments and is bias-corrected afterwards;
    ``optax.amsgrad`` corrects first (or never), which gives other steps.

    Source: PyTorch's Adam; Reddi et al., "On the convergence of Adam and beyond", ICLR 2018.
    """

    def init_fn(params: PyTree) -> _AMSGradState:
        zeros = optax.tree.zeros_like(params)
        return _AMSGradState(jnp.zeros((), jnp.int32), zeros, zeros, zeros)

    def update_fn(
        updates: PyTree, state: _AMSGradState, params: PyTree | None = None
    ) -> tuple[PyTree, _AMSGradState]:
        del params
        step = state.step + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, updates)
        nu_max = jax.tree.map(jnp.maximum, state.nu_max, nu)
        first, second = 1 - b1**step, 1 - b2**step

        def towards(m: jax.Array, v: jax.Array) -> jax.Array:
            return (m / first.astype(m.dtype)) / (jnp.sqrt(v / second.astype(v.dtype)) + eps)

        updates = jax.tree.map(towards, mu, nu_max)
        return updates, _AMSGradState(step, mu, nu, nu_max)

    return optax.GradientTransformation(init_fn, update_fn)
