"""The hypergradient against finite differences, and the solvers against each other."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxunlearn._implicit import SOLVERS, hypergradient, solver

pytestmark = pytest.mark.usefixtures("x64")

STEP = 0.3
THETA = {"a": np.array([0.7, -0.4, 0.2]), "b": np.array(0.5)}


def inner_loss(delta: Any, theta: Any) -> Any:
    """Strongly convex in delta, with a Hessian between 1 and 3, so that a step of 0.3 contracts."""
    u, w = delta["u"], delta["w"]
    coupling = jnp.sum(jnp.cos(u * theta["a"]) * theta["b"] * 0.2)
    return jnp.sum((u - jnp.sin(theta["a"])) ** 2) + 0.75 * (w - theta["b"] * u[0]) ** 2 + coupling


def phi(delta: Any, theta: Any) -> Any:
    return jax.tree.map(lambda d, g: d - STEP * g, delta, jax.grad(inner_loss)(delta, theta))


def outer_loss(delta: Any, theta: Any) -> Any:
    return jnp.sum(delta["u"] ** 3) + delta["w"] * theta["b"] + jnp.sum(theta["a"] ** 2) * delta["w"]


@jax.jit
def solution(theta: Any) -> Any:
    delta = {"u": jnp.zeros(3), "w": jnp.asarray(0.0)}
    return jax.lax.fori_loop(0, 300, lambda _, d: phi(d, theta), delta)


@jax.jit
def total_loss(theta: Any) -> Any:
    return outer_loss(solution(theta), theta)


def finite_differences() -> dict[str, np.ndarray]:
    result = {}
    for name, value in THETA.items():
        gradient = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            shifted = []
            for sign in (1, -1):
                moved = {key: np.array(array) for key, array in THETA.items()}
                moved[name][index] += sign * 1e-5
                shifted.append(float(total_loss(moved)))
            gradient[index] = (shifted[0] - shifted[1]) / 2e-5
        result[name] = gradient
    return result


def total_derivative(solve: Any) -> Any:
    theta = jax.tree.map(jnp.asarray, THETA)
    return hypergradient(outer_loss, phi, solution(theta), theta, solve).gradient


@pytest.mark.parametrize("name", SOLVERS)
def test_many_steps_equal_finite_differences(name: str) -> None:
    expected = finite_differences()
    found = total_derivative(solver(name, 200))
    for key, gradient in expected.items():
        np.testing.assert_allclose(found[key], gradient, rtol=1e-6, atol=1e-8)


def test_the_neumann_series_converges_geometrically() -> None:
    exact = total_derivative(solver("normal_cg", 200))
    errors = [
        float(np.linalg.norm(total_derivative(solver("neumann", steps))["a"] - exact["a"]))
        for steps in (5, 10, 20)
    ]
    # The slowest mode shrinks by about 0.68 a step.
    assert errors[0] > 5 * errors[1] > 50 * errors[2] > 0


def test_without_a_solver_only_the_direct_part_is_left() -> None:
    theta = jax.tree.map(jnp.asarray, THETA)
    result = hypergradient(outer_loss, phi, solution(theta), theta, None)
    expected = jax.grad(outer_loss, argnums=1)(solution(theta), theta)
    for found in (result.gradient, result.direct):
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert abs(float(result.gradient["b"]) - float(finite_differences()["b"])) > 0.01


def unrolled(steps: int) -> Any:
    """The K-step recursion written down from the definition, with dense matrices."""
    theta = jax.tree.map(jnp.asarray, THETA)
    delta = solution(theta)
    flat, rebuild = jax.flatten_util.ravel_pytree(delta)
    jacobian = jax.jacobian(lambda d: jax.flatten_util.ravel_pytree(phi(rebuild(d), theta))[0])(flat)
    gradient, _ = jax.flatten_util.ravel_pytree(jax.grad(outer_loss)(delta, theta))
    v = jnp.zeros_like(gradient)
    for _ in range(steps):
        v = jacobian.T @ v + gradient
    _, pull = jax.vjp(lambda t: phi(delta, t), theta)
    direct = jax.grad(outer_loss, argnums=1)(delta, theta)
    return jax.tree.map(jnp.add, direct, pull(rebuild(v))[0])


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_neumann_is_the_official_recursion(steps: int) -> None:
    found = total_derivative(solver("neumann", steps))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, unrolled(steps))


@pytest.mark.parametrize("name", SOLVERS)
def test_damping_solves_the_damped_system(name: str) -> None:
    matrix = jnp.array([[1.2, 0.3], [0.3, 0.9]])
    right = jnp.array([1.0, -2.0])
    # In jaxopt's convention the system is (dPhi/d delta - I)^T v = -g.
    found = solver(name, 200, damping=0.5)(lambda v: -matrix @ v, -right)
    np.testing.assert_allclose(found, np.linalg.solve(matrix + 0.5 * np.eye(2), right), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "magic", "steps": 3}, "name='magic'"),
        ({"name": "gmres", "steps": 0}, "steps=0"),
        ({"name": "gmres", "steps": 1, "damping": -1.0}, "damping=-1.0"),
    ],
)
def test_bad_solvers_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solver(**arguments)


def test_linearises_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def counted(delta: Any, theta: Any) -> Any:
        nonlocal calls
        calls += 1
        return phi(delta, theta)

    def count(steps: int) -> int:
        nonlocal calls
        calls = 0
        theta = jax.tree.map(jnp.asarray, THETA)
        hypergradient(outer_loss, counted, solution(theta), theta, solver("neumann", steps))
        return calls

    assert count(2) == count(20)


def test_works_inside_jit_and_vmap() -> None:
    def run(theta: Any) -> Any:
        return hypergradient(outer_loss, phi, solution(theta), theta, solver("neumann", 10)).gradient

    thetas = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf * 0.5]), THETA)
    together = jax.jit(jax.vmap(run))(thetas)
    for index in range(2):
        alone = run(jax.tree.map(lambda leaf, i=index: leaf[i], thetas))
        jax.tree.map(lambda a, b, i=index: np.testing.assert_allclose(a[i], b, rtol=1e-10), together, alone)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps", [1, 5, 30])
def test_solvers_take_as_many_products_as_they_are_told(name: str, steps: int) -> None:
    """To a few that begin and check; two for every iteration of those that need two."""
    products = 0

    def count(_: Any) -> None:
        nonlocal products
        products += 1

    matrix = jnp.eye(60) + 0.1 * jax.random.normal(jax.random.key(0), (60, 60))

    def matvec(v: jax.Array) -> jax.Array:
        jax.debug.callback(count, v[0])
        return -matrix @ v

    jax.block_until_ready(solver(name, steps, tolerance=0.0)(matvec, jnp.ones(60)))
    jax.effects_barrier()
    assert steps - 1 <= products <= 2 * steps + 5
