"""JAX: parameters of a module fixture, compiled functions and what they close over."""

import pytest

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")


@pytest.fixture(scope="module")
def state():
    return {"params": jnp.ones((2048, 1024))}


@jax.jit
def step(params, batch):
    return params - 0.1 * jax.grad(lambda p: (batch @ p).sum())(params)


def test_trains(state):
    state["params"] = step(state["params"], jnp.ones((4, 2048)))


def test_adds_the_state_of_an_optimizer(state):
    state["momentum"] = jnp.zeros((2048, 1024))


def test_closes_over_an_array():
    weights = jnp.ones((2048, 1024))

    @jax.jit
    def apply(x):
        return x * weights

    assert float(apply(jnp.ones((2048, 1024))).max()) == 1


def test_fails_with_an_array():
    weights = jnp.ones((2048, 1024))
    assert float(weights.max()) == 2


def test_compiles_for_many_shapes():
    @jax.jit
    def total(x):
        return (x * 2).sum()

    assert sum(float(total(jnp.ones((size, 1024)))) for size in (256, 512, 1024)) > 0
