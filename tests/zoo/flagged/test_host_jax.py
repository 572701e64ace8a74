"""JAX arrays that a test keeps."""

import pytest

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")

FLAGGED = {
    "test_keeps_an_array": "leaked 16.0 MiB on cpu",
    "test_keeps_a_tree_of_parameters": "leaked 16.0 MiB on cpu",
}

KEPT = []


def test_uses_arrays():
    assert float(jnp.ones((1024, 1024)).sum()) == 1024 * 1024


def test_keeps_an_array():
    KEPT.append(jnp.ones((2048, 2048)))


def test_keeps_a_tree_of_parameters():
    KEPT.append({"dense": {"kernel": jnp.ones((2048, 1024)), "bias": jnp.zeros((2048, 1024))}})


def test_compiles_and_drops():
    @jax.jit
    def step(x):
        return (x @ x).sum()

    assert float(step(jnp.ones((1024, 1024)))) > 0
