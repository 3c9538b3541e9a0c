"""Hypergradients through implicit differentiation; the only importer of jaxopt.

The inner problem is a fixed point delta = Phi(delta, theta). Where it holds, the implicit function theorem
gives d delta/d theta = (I - dPhi/d delta)^-1 dPhi/d theta, and the total derivative of an outer loss is

    dL/d theta = grad_theta L + (dPhi/d theta)^T v,   v solves (I - dPhi/d delta)^T v = grad_delta L.

jaxopt's ``root_vjp`` states the same for the root of F(delta, theta) = Phi(delta, theta) - delta: it solves
(dF/d delta)^T v = -grad_delta L with the solver it is given and applies (dF/d theta)^T. The derivative
of Phi is linearised once, at the current point, for all products that the solver asks for.

How good an unconverged or non-contractive inner problem makes this is a matter of the solver:

| solver        | v                                                        | where Phi is no contraction        |
|---------------|----------------------------------------------------------|------------------------------------|
| neumann(K)    | sum_{k<K} (dPhi/d delta)^T^k grad_delta L                | finite, grows geometrically with K |
| normal_cg     | least-squares solution, by CG on the normal equations    | exact where a solution exists      |
| bicgstab      | exact solution                                           | may break down                     |
| gmres         | exact solution, minimal residual in a Krylov space       | exact; stagnates if ill conditioned|

Exact means exact for the linear system at the current delta, which is a stationary point of the inner
problem only if that was solved; where its Hessian is indefinite the solution is that of a saddle.
"""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jaxtyping import PyTree

from jaxunlearn._check import check_at_least, check_in
from jaxunlearn._typing import LinearSolve, MatVec, Scalar

with warnings.catch_warnings():
    # It says that jaxopt is no longer maintained; that is known, and the reason for this module's walls.
    warnings.simplefilter("ignore", DeprecationWarning)
    from jaxopt import implicit_diff, linear_solve

SOLVERS = ("neumann", "normal_cg", "bicgstab", "gmres")


class Hypergradient(NamedTuple):
    """An outer loss and its total derivative.

    Attributes:
      value: the outer loss.
      gradient: its total derivative in the parameters; their structure.
      direct: the part that treats the inner solution as a constant.
    """

    value: Scalar
    gradient: PyTree
    direct: PyTree


def hypergradient(
    outer_fun: Callable[[PyTree, PyTree], Scalar],
    fixed_point_fun: Callable[[PyTree, PyTree], PyTree],
    inner: PyTree,
    params: PyTree,
    solve: LinearSolve | None,
) -> Hypergradient:
    """The total derivative of ``outer_fun(inner(params), params)`` by implicit differentiation.

    Args:
      outer_fun: the outer loss L(delta, theta), a scalar.
      fixed_point_fun: Phi(delta, theta), of delta's structure; ``inner`` should satisfy Phi(inner) = inner.
      inner: delta, a pytree of floating arrays; a constant, nothing differentiates how it was found.
      params: theta, a pytree of floating arrays.
      solve: ``solve(matvec, b)`` for the linear system; see ``solver``. None leaves the implicit part away.

    Returns:
      The loss, the total derivative, and its direct part.

    Source: Zeng et al., "Adversarial unlearning of backdoors via implicit hypergradient", ICLR 2022,
    equations 3 to 5; the K-step solve is ``fixed_point`` of the official hypergrad.py.

    Example:
      delta*(t) = t / 2 solves delta = Phi(delta, t) = t / 4 + delta / 2, so d(delta*^2)/dt = t / 2:

      >>> import jax.numpy as jnp
      >>> phi = lambda delta, t: t / 4 + delta / 2
      >>> h = hypergradient(lambda delta, t: delta**2, phi, jnp.array(1.0), jnp.array(2.0), solver("neumann", 50))
      >>> round(float(h.gradient), 5)
      1.0
    """
    if solve is None:
        value, direct = jax.value_and_grad(outer_fun, argnums=1)(inner, params)
        return Hypergradient(value, direct, direct)
    value, (inner_gradient, direct) = jax.value_and_grad(outer_fun, argnums=(0, 1))(inner, params)

    def optimality_fun(delta: PyTree, theta: PyTree) -> PyTree:
        return optax.tree.sub(fixed_point_fun(delta, theta), delta)

    (implicit,) = implicit_diff.root_vjp(optimality_fun, inner, (params,), inner_gradient, solve=solve)
    return Hypergradient(value, optax.tree.add(direct, implicit), direct)


_MOST_VECTORS = 20  # that gmres keeps


def solver(
    name: str, steps: int, *, damping: float | jax.Array = 0.0, tolerance: float = 1e-10
) -> LinearSolve:
    """A solver of (I - dPhi/d delta + damping I)^T v = grad_delta L, in jaxopt's calling convention.

    Args:
      name: ``neumann`` (the official fixed-point iteration), ``normal_cg``, ``bicgstab`` or ``gmres``.
      steps: number of terms of the Neumann series, or most iterations of the others. The first term needs
        no matrix product, because the official iteration starts from zero.
      damping: added to the diagonal; makes a series converge and an indefinite system better posed.
      tolerance: relative residual at which the Krylov solvers stop.

    Raises:
      ValueError: if the name is unknown or a number is out of range.
    """
    check_in(SOLVERS, name=name)
    check_at_least(1, steps=steps)
    check_at_least(0, damping=damping, tolerance=tolerance)

    def damped(matvec: MatVec) -> MatVec:
        # The matrix here is dPhi/d delta - I, so damping enters with a minus. (jaxopt's ``ridge`` would do, but
        # for the normal equations it means another thing.)
        return lambda v: jax.tree.map(lambda mv, vi: mv - damping * vi, matvec(v), v)

    if name == "neumann":
        return lambda matvec, b: _neumann(damped(matvec), b, steps)
    krylov = {
        "normal_cg": linear_solve.solve_normal_cg,
        "bicgstab": linear_solve.solve_bicgstab,
        "gmres": linear_solve.solve_gmres,
    }[name]
    limits: dict[str, int] = {"maxiter": steps}
    if name == "gmres":  # which counts its restarts, each after as many vectors as it keeps
        limits = {"maxiter": math.ceil(steps / _MOST_VECTORS), "restart": min(steps, _MOST_VECTORS)}
    return lambda matvec, b: krylov(damped(matvec), b, tol=tolerance, **limits)


def _neumann(matvec: MatVec, b: PyTree, steps: int) -> PyTree:
    """v_1 = g and v_{k+1} = (dPhi/d delta - damping)^T v_k + g, with g = -b.

    Unrolled: a loop would take no less time to compile, and on CPU far more to run with JAX's own convolutions.
    """
    gradient = optax.tree.scale(-1, b)
    v = gradient
    for _ in range(steps - 1):
        v = jax.tree.map(lambda mv, vi, g: mv + vi + g, matvec(v), v, gradient)
    return v
