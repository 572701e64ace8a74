"""JAX arrays that a test keeps."""

import pytest

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")

FLAGGED = {
    "test_keeps_an_array": "leaked 16.0 MiB on cpu",
    "test_keeps_a_tree_of_parameters": "leaked 16.0 MiB on cpu",
    "test_keeps_what_is_computed_after_it": "leaked 16.0 MiB on cpu",
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


@jax.jit
def slow_scale(x):
    """JAX hands the result out at once, and takes some 0.3 s for it in the background, in little memory."""
    return jax.lax.fori_loop(0, 300, lambda _, y: y @ x * 1e-2, x)[0, 0]


@jax.jit
def spread(value):
    return jnp.zeros((2048, 2048)) + value


def computed_late():
    return spread(slow_scale(jnp.ones((256, 256))))


def test_waits_for_it():
    assert computed_late().block_until_ready().shape == (2048, 2048)


def test_keeps_what_is_computed_after_it():
    KEPT.append(computed_late())


def test_comes_while_it_is_computed():
    assert float(jnp.ones((16, 16)).sum()) == 256


@pytest.fixture(scope="module")
def parameters():
    return {"kernel": computed_late()}


def test_does_not_wait_for_a_fixture(parameters):
    assert parameters["kernel"].shape == (2048, 2048)


def test_does_not_wait_for_a_step(parameters):
    parameters["momentum"] = computed_late()


def test_comes_after_both(parameters):
    assert float(parameters["kernel"][0, 0]) == float(parameters.get("momentum", parameters["kernel"])[0, 0])
