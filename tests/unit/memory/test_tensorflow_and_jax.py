"""TensorFlow's and JAX's GPUs, as their runtimes describe them."""

from unittest.mock import MagicMock

import pytest

from pytest_gpuclean.memory.jax import JaxProbe, has_computed, live_clients
from pytest_gpuclean.memory.tensorflow import TensorFlowProbe, live_context
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.memory import Reading
from pytest_gpuclean.units import MiB
from unit.fakes import fake_module, put, remove


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch):
    remove(monkeypatch, "tensorflow", "tensorflow.python.eager.context", "jax", "jax._src.xla_bridge")


class LogicalDevice:
    def __init__(self, name):
        self.name = f"/device:{name}"
        self.device_type = name.partition(":")[0]


class Context:
    def __init__(self, *devices, initialised=True, info=None):
        self._initialized = initialised
        self.devices = [LogicalDevice(name) for name in devices]
        self.info = info or {"current": 4 * MiB, "peak": 9 * MiB}
        self.asked, self.reset = [], []

    def list_logical_devices(self):
        return self.devices

    def get_memory_info(self, name):
        self.asked.append(name)
        if isinstance(self.info, Exception):
            raise self.info
        return self.info

    def reset_memory_stats(self, name):
        self.reset.append(name)


def install_tensorflow(monkeypatch, context):
    put(
        monkeypatch,
        fake_module("tensorflow"),
        fake_module("tensorflow.python.eager.context", context_safe=lambda: context),
    )
    return context


def test_each_device_of_tensorflow_gives_a_reading(monkeypatch):
    install_tensorflow(monkeypatch, Context("CPU:0", "GPU:0", "GPU:1"))
    host, first, second = TensorFlowProbe().read()
    assert host.device == "cpu"
    assert first == Reading(
        device="cuda:0",
        source="tensorflow",
        allocated_bytes=4 * MiB,
        reserved_bytes=4 * MiB,
        peak_bytes=9 * MiB,
    )
    assert second.device == "cuda:1"


def test_a_gpu_that_tensorflow_cannot_read_is_unavailable(monkeypatch):
    install_tensorflow(monkeypatch, Context("GPU:0", info=ValueError("no allocator")))
    assert list(TensorFlowProbe().read()) == [Unavailable("tensorflow GPU:0", "ValueError: no allocator")]


def test_a_new_peak_begins_on_each_device(monkeypatch):
    context = install_tensorflow(monkeypatch, Context("CPU:0", "GPU:0"))
    TensorFlowProbe().reset_peak()
    assert context.reset == ["CPU:0", "GPU:0"]


@pytest.mark.parametrize("context", [None, Context("GPU:0", initialised=False), MagicMock()])
def test_a_tensorflow_runtime_that_is_not_up_gives_nothing(monkeypatch, context):
    install_tensorflow(monkeypatch, context)
    assert live_context() is None
    assert list(TensorFlowProbe().read()) == []
    TensorFlowProbe().reset_peak()


def test_tensorflows_cpu_figure_is_its_allocators(monkeypatch):
    context = install_tensorflow(monkeypatch, Context("CPU:0"))
    (reading,) = TensorFlowProbe().read()
    assert (reading.device, reading.source, reading.allocated_bytes) == ("cpu", "tensorflow", 4 * MiB)
    assert context.asked == ["CPU:0"]


def test_without_tensorflow_nothing_is_in_use():
    assert list(TensorFlowProbe().read()) == []


class JaxDevice:
    def __init__(self, index, stats):
        self.local_hardware_id, self.stats = index, stats

    def memory_stats(self):
        if isinstance(self.stats, Exception):
            raise self.stats
        return self.stats


class Client:
    def __init__(self, platform, *stats):
        self.platform = platform
        self.devices = [JaxDevice(index, stat) for index, stat in enumerate(stats)]
        self.arrays = []

    def local_devices(self):
        return self.devices

    def live_arrays(self):
        return list(self.arrays)


def install_jax(monkeypatch, *clients, is_up=True):
    def backends():
        assert is_up is True, "this starts them"
        return {client.platform: client for client in clients}

    put(
        monkeypatch,
        fake_module("jax"),
        fake_module("jax._src.xla_bridge", backends_are_initialized=lambda: is_up, backends=backends),
    )


def test_each_gpu_of_jax_gives_a_reading(monkeypatch):
    stats = {"bytes_in_use": 4 * MiB, "pool_bytes": 64 * MiB, "peak_bytes_in_use": 9 * MiB}
    install_jax(monkeypatch, Client("cpu", AssertionError()), Client("cuda", stats, {"bytes_in_use": MiB}))
    first, second = JaxProbe().read()
    assert first == Reading(
        device="cuda:0", source="jax", allocated_bytes=4 * MiB, reserved_bytes=64 * MiB, peak_bytes=9 * MiB
    )
    assert (second.device, second.allocated_bytes, second.reserved_bytes, second.peak_bytes) == (
        "cuda:1",
        MiB,
        MiB,
        None,
    )


@pytest.mark.parametrize(
    ("stats", "reason"),
    [
        (None, "this backend keeps no memory statistics"),
        (RuntimeError("UNIMPLEMENTED"), "RuntimeError: UNIMPLEMENTED"),
        ({"bytes_in_use": MagicMock()}, "TypeError: a figure is of type MagicMock, not a whole number"),
        ({}, "KeyError: 'bytes_in_use'"),
    ],
)
def test_a_backend_without_figures_is_unavailable_and_not_0(monkeypatch, stats, reason):
    install_jax(monkeypatch, Client("metal", stats))
    assert list(JaxProbe().read()) == [Unavailable("jax metal:0", reason)]


@pytest.mark.parametrize("is_up", [False, None, MagicMock()])
def test_jax_backends_that_are_not_up_are_not_started(monkeypatch, is_up):
    install_jax(monkeypatch, is_up=is_up)
    assert live_clients() == []
    assert list(JaxProbe().read()) == []


class Array:
    """Asked whether it is ready after it has been deleted, jaxlib's ends the process."""

    def __init__(self, *, is_ready=True, is_deleted=False):
        self.ready, self.deleted = is_ready, is_deleted

    def is_deleted(self):
        return self.deleted

    def is_ready(self):
        assert not self.deleted
        return self.ready


def test_what_jax_still_computes_in_host_memory_is_found_among_the_newest(monkeypatch):
    assert has_computed()
    cpu, cuda = Client("cpu"), Client("cuda", {"bytes_in_use": MiB})
    install_jax(monkeypatch, cpu, cuda)
    cuda.arrays = [Array(is_ready=False)]  # its memory is taken at once
    cpu.arrays = [Array(is_deleted=True), Array()]
    assert has_computed()
    cpu.arrays.append(Array(is_ready=False))
    assert not has_computed()
    cpu.arrays[:0] = [Array() for _ in range(500)]
    assert has_computed()
    assert not has_computed(all_of_it=True)


def test_arrays_that_cannot_say_are_not_waited_for(monkeypatch):
    client = Client("cpu")
    client.arrays = [object()]
    install_jax(monkeypatch, client)
    assert has_computed()
