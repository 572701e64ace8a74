"""TensorFlow tensors that a test keeps, and what Keras needs for itself."""

import pytest

FLAGGED = {
    "test_keeps_a_tensor": "leaked 16.0 MiB on cpu",
    "test_keeps_a_variable": "leaked 16.0 MiB on cpu",
}

KEPT = []


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def variables(tf):
    return {"weights": tf.Variable(tf.ones((2048, 1024)))}


def test_uses_a_tensor(tf):
    assert float(tf.reduce_sum(tf.ones((1024, 1024)))) == 1024 * 1024


def test_keeps_a_tensor(tf):
    KEPT.append(tf.ones((2048, 2048)) * 1.0)


def test_keeps_a_variable(tf):
    KEPT.append(tf.Variable(tf.ones((2048, 2048))))


def test_traces_a_function(tf):
    @tf.function
    def double(x):
        return x * 2

    assert float(tf.reduce_max(double(tf.ones((1024, 1024))))) == 2


def test_takes_a_gradient(tf):
    weights = tf.Variable(tf.ones((2048, 1024)))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(weights * weights)
    assert float(tf.reduce_max(tape.gradient(loss, weights))) == 2


def test_adds_a_variable_to_a_fixture(tf, variables):
    variables["momentum"] = tf.Variable(tf.zeros((2048, 1024)))


@pytest.fixture(scope="module")
def lazy(tf):
    class Lazy(tf.Module):
        weights = None

        @tf.function
        def __call__(self, x):
            if self.weights is None:
                self.weights = tf.Variable(tf.ones((2048, 1024)))
            return tf.reduce_sum(self.weights) * x

    return Lazy()


def test_brings_a_late_weight_of_a_fixture_to_life(tf, lazy):
    assert float(lazy(tf.constant(1.0))) == 2048 * 1024


def test_fails_with_a_tensor(tf):
    batch = tf.ones((2048, 2048)) * 3.0
    assert float(tf.reduce_max(batch)) == 0
