"""The real TensorFlow and JAX on the CPU: looking never initialises them."""

import subprocess
import sys
import textwrap
from importlib.util import find_spec

import pytest

needs_tensorflow = pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
needs_jax = pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")


def output_of(code):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@needs_tensorflow
def test_tensorflow_can_still_be_configured_after_everything_has_looked_at_it_and_cleaned():
    lines = output_of("""
        import tensorflow as tf
        from pytest_gpuclean.cleanup import CLEANERS
        from pytest_gpuclean.cleanup.interface import Occasion
        from pytest_gpuclean.cleanup.runner import run_cleanup
        from pytest_gpuclean.memory.census import host_storages
        from pytest_gpuclean.memory.gauge import Gauge
        from pytest_gpuclean.memory.tensorflow import TensorFlowProbe, live_context

        gauge = Gauge("all")
        gauge.read()
        gauge.reset_peaks()
        host_storages()
        result = run_cleanup([cleaner() for cleaner in CLEANERS], Occasion(level="comprehensive"), {}, dict)
        print(list(TensorFlowProbe().read()), live_context(), result.failed)
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        print(len(tf.config.list_logical_devices("CPU")))
        kept = tf.zeros([1024, 1024])
        tf.zeros([1]).numpy()
        print(sum(reading.allocated_bytes for reading in TensorFlowProbe().read()) >= 4 * 1024 * 1024)
    """)
    assert lines == ["[] None ()", "2", "True"]


@needs_jax
def test_jax_backends_are_not_started_by_looking_and_cleaning():
    lines = output_of("""
        import jax, jax.numpy, numpy
        from jax._src import xla_bridge
        from pytest_gpuclean.cleanup import CLEANERS
        from pytest_gpuclean.cleanup.interface import Occasion
        from pytest_gpuclean.cleanup.runner import run_cleanup
        from pytest_gpuclean.memory.census import host_storages
        from pytest_gpuclean.memory.gauge import Gauge
        from pytest_gpuclean.memory.jax import JaxProbe, live_clients

        gauge = Gauge("all")
        gauge.read()
        gauge.reset_peaks()
        host_storages()
        result = run_cleanup([cleaner() for cleaner in CLEANERS], Occasion(level="comprehensive"), {}, dict)
        print(list(JaxProbe().read()), live_clients(), result.failed, xla_bridge.backends_are_initialized())
        before = sum(host_storages().values())
        kept = jax.numpy.zeros([1024, 1024]) + 1
        kept.block_until_ready()
        print([client.platform for client in live_clients()], sum(host_storages().values()) - before)
        print([r for r in JaxProbe().read()])
    """)
    assert lines == ["[] [] () False", f"['cpu'] {4 * 1024 * 1024}", "[]"]


@needs_jax
def test_a_jax_array_that_was_deleted_holds_nothing():
    lines = output_of("""
        import jax.numpy
        from pytest_gpuclean.memory.census import host_storages

        kept = jax.numpy.ones([1024, 1024]).block_until_ready()
        with_it = sum(host_storages().values())
        kept.delete()
        print(with_it - sum(host_storages().values()))
    """)
    assert lines == [str(4 * 1024 * 1024)]


@needs_tensorflow
def test_the_handle_of_a_variable_holds_its_value_with_the_variable_and_without_it():
    lines = output_of("""
        import gc
        import tensorflow as tf
        from pytest_gpuclean.memory.storages import StorageReaders

        readers = StorageReaders()
        def storage(value):
            return readers.reader_of(type(value))(value)

        class Lazy(tf.Module):
            made = None
            @tf.function
            def __call__(self):
                if self.made is None:
                    self.made = tf.Variable(tf.zeros((3, 5), tf.float64))
                return self.made + 1.0

        lazy = Lazy()
        lazy()
        for variable in (tf.Variable(tf.zeros((7, 2), tf.int16)), lazy.made):
            handle = variable.handle
            print(storage(variable) == storage(handle), storage(handle).size_bytes)
        del variable, lazy
        gc.collect()
        print(storage(handle).size_bytes)
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
        print(storage(table.resource_handle), storage(tf.Variable(1.0, shape=tf.TensorShape(None)).handle))
    """)
    assert lines == ["True 28", "True 120", "120", "None None"]


@needs_jax
def test_an_array_that_was_exchanged_by_dlpack_is_counted_once():
    lines = output_of("""
        import jax.numpy, numpy
        from pytest_gpuclean.memory.census import host_storages

        numpy.zeros(4), sum(host_storages().values())
        whole = jax.numpy.ones(1 << 20, "uint8")
        before = sum(host_storages().values())
        seen = numpy.from_dlpack(whole)
        part = seen[1000:2000]
        print(sum(host_storages().values()) - before)
        del whole, seen
        print(sum(host_storages().values()) - before)
    """)
    assert lines == ["0", "0"]
