"""torch's allocators, through releases, backends and stand-ins; nothing is ever initialised by looking."""

import sys
from types import ModuleType
from unittest.mock import MagicMock

import pytest

from pytest_gpuclean.memory.torch import TorchProbe, accelerator_is_expected, initialised_backends
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.memory import Reading
from pytest_gpuclean.units import MiB
from unit.fakes import fake_module, put, remove


class Device:
    def __init__(self, kind):
        self.type = kind


def stats(current=4 * MiB, requested=3 * MiB, reserved=20 * MiB, peak=9 * MiB, ever=50 * MiB):
    return {
        "allocated_bytes": {"all": {"current": current, "peak": peak, "allocated": ever, "freed": ever - current}},
        "reserved_bytes": {"all": {"current": reserved}},
        "requested_bytes": {"all": {"current": requested}},
    }


def forbidden(name):
    def function(*arguments):
        raise AssertionError(f"{name}{arguments} initialises the device")

    return function


class Torch:
    """A torch of some release on some machine, as a plain module."""

    def __init__(self, backend="cuda", ready=True, devices=2, per_device=None):
        self.ready = ready
        self.resets = []
        per_device = per_device or [stats()] * devices

        def stats_of(index):
            answer = per_device[index]
            if isinstance(answer, Exception):
                raise answer
            return answer

        def is_ready():
            if isinstance(self.ready, Exception):
                raise self.ready
            return self.ready

        device_module = fake_module(
            f"torch.{backend}",
            device_count=lambda: devices,
            is_initialized=lambda: self.ready is True,
            is_available=lambda: True,
            reset_peak_memory_stats=self.resets.append,
            current_device=forbidden("current_device"),
        )
        self.module = fake_module(
            "torch",
            accelerator=fake_module(
                "torch.accelerator",
                current_accelerator=lambda: Device(backend) if backend else None,
                device_count=forbidden("accelerator.device_count"),
            ),
            _C=fake_module(
                "torch._C", _accelerator_isAllocatorInitialized=is_ready, _accelerator_getDeviceStats=stats_of
            ),
            version=fake_module("torch.version", cuda="12.4", hip=None),
            **({backend: device_module} if backend else {}),
        )

    def without(self, *path):
        module = self.module
        for name in path[:-1]:
            module = vars(module)[name]
        vars(module).pop(path[-1])
        return self


def read(monkeypatch, torch):
    put(monkeypatch, torch.module)
    return list(TorchProbe().read())


def test_each_device_of_the_accelerator_gives_a_reading(monkeypatch):
    first, second = read(monkeypatch, Torch("cuda"))
    assert first == Reading(
        device="cuda:0",
        source="torch",
        allocated_bytes=4 * MiB,
        reserved_bytes=20 * MiB,
        requested_bytes=3 * MiB,
        peak_bytes=9 * MiB,
        total_bytes=50 * MiB,
    )
    assert second.device == "cuda:1"


@pytest.mark.parametrize("backend", ["cuda", "xpu", "npu", "simgpu"])
def test_a_device_is_named_as_torch_names_it(monkeypatch, backend):
    assert [reading.device for reading in read(monkeypatch, Torch(backend, devices=1))] == [f"{backend}:0"]


def test_a_torch_without_accelerator_gives_nothing(monkeypatch):
    assert read(monkeypatch, Torch(backend=None)) == []


def test_a_device_that_is_not_initialised_gives_nothing_and_stays_so(monkeypatch):
    assert read(monkeypatch, Torch(ready=False)) == []


def test_an_allocator_that_cannot_tell_is_asked_by_its_module(monkeypatch):
    """`_accelerator_isAllocatorInitialized` raises where the accelerator has no allocator with statistics."""
    assert read(monkeypatch, Torch(ready=RuntimeError("no allocator"))) == []


def test_a_device_that_is_lost_is_unavailable_and_the_others_are_read(monkeypatch):
    torch = Torch(per_device=[RuntimeError("CUDA error: unspecified launch failure\nmore"), stats()])
    lost, good = read(monkeypatch, torch)
    assert lost == Unavailable("torch cuda:0", "RuntimeError: CUDA error: unspecified launch failure")
    assert good.device == "cuda:1"


def test_an_allocator_that_does_not_keep_what_was_asked_for_is_judged_by_what_it_gave(monkeypatch):
    (reading,) = read(monkeypatch, Torch(devices=1, per_device=[stats(requested=0)]))
    assert reading.requested_bytes is None
    assert reading.held_bytes == 4 * MiB


def test_an_empty_allocator_has_0_bytes_asked_for(monkeypatch):
    (reading,) = read(monkeypatch, Torch(devices=1, per_device=[stats(current=0, requested=0)]))
    assert reading.held_bytes == 0


def test_an_allocator_without_the_figure_at_all_is_read_too(monkeypatch):
    older = stats()
    del older["requested_bytes"]
    (reading,) = read(monkeypatch, Torch(devices=1, per_device=[older]))
    assert reading.requested_bytes is None


@pytest.mark.parametrize("answer", [MagicMock(), {}, {"allocated_bytes": {"all": {"current": MagicMock()}}}, None])
def test_figures_that_are_mocks_or_missing_are_unavailable(monkeypatch, answer):
    (gap,) = read(monkeypatch, Torch(devices=1, per_device=[answer]))
    assert isinstance(gap, Unavailable)
    assert gap.source == "torch cuda:0"


# -- before torch.accelerator ---------------------------------------------------------------------------------------


def older(backend="cuda", **more):
    torch = Torch(backend, **more).without("accelerator").without("_C", "_accelerator_isAllocatorInitialized")
    torch.without("_C", "_accelerator_getDeviceStats")
    flat = {
        "allocated_bytes.all.current": 4 * MiB,
        "allocated_bytes.all.peak": 9 * MiB,
        "allocated_bytes.all.allocated": 50 * MiB,
        "allocated_bytes.small_pool.current": 1,
        "reserved_bytes.all.current": 20 * MiB,
        "num_alloc_retries": 0,
    }
    vars(vars(torch.module)[backend])["memory_stats"] = lambda index: flat
    return torch


@pytest.mark.parametrize("backend", ["cuda", "xpu"])
def test_a_torch_before_2_6_is_read_by_its_backends(monkeypatch, backend):
    readings = read(monkeypatch, older(backend))
    assert [(r.device, r.allocated_bytes, r.reserved_bytes) for r in readings] == [
        (f"{backend}:0", 4 * MiB, 20 * MiB),
        (f"{backend}:1", 4 * MiB, 20 * MiB),
    ]


def test_a_torch_before_2_6_is_not_initialised_by_looking(monkeypatch):
    assert read(monkeypatch, older(ready=False)) == []


def test_a_backend_without_statistics_raises_for_the_gauge_to_tell(monkeypatch):
    torch = older()
    torch.without("cuda", "memory_stats")
    with pytest.raises(RuntimeError, match="no memory statistics"):
        read(monkeypatch, torch)


def mps_torch(available=True, allocated=5 * MiB):
    torch = Torch("mps")
    torch.module.mps = fake_module(
        "torch.mps",
        current_allocated_memory=lambda: allocated,
        driver_allocated_memory=lambda: 8 * MiB,
    )
    torch.module._C._mps_is_available = lambda: available
    return torch


def test_mps_has_one_device_without_a_number(monkeypatch):
    (reading,) = read(monkeypatch, mps_torch())
    assert (reading.device, reading.allocated_bytes, reading.reserved_bytes) == ("mps", 5 * MiB, 8 * MiB)
    assert (reading.peak_bytes, reading.total_bytes) == (None, None)


def test_an_mps_that_is_not_there_gives_nothing(monkeypatch):
    assert read(monkeypatch, mps_torch(available=False)) == []


def test_an_mps_that_answers_with_a_mock_is_unavailable(monkeypatch):
    assert read(monkeypatch, mps_torch(allocated=MagicMock())) == [
        Unavailable("torch mps", "TypeError: a figure is of type MagicMock, not a whole number")
    ]


# -- stand-ins ------------------------------------------------------------------------------------------------------


def test_without_torch_there_is_nothing_to_read(monkeypatch):
    remove(monkeypatch, "torch")
    assert list(TorchProbe().read()) == []
    TorchProbe().reset_peak()


@pytest.mark.parametrize("kind", [MagicMock, object, lambda: None, lambda: ModuleType("torch")])
def test_a_stand_in_for_torch_gives_nothing(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "torch", kind())
    assert list(TorchProbe().read()) == []


def test_a_half_imported_torch_gives_nothing(monkeypatch):
    torch = Torch()
    torch.module.__spec__._initializing = True
    assert read(monkeypatch, torch) == []


def test_a_torch_with_nothing_in_it_gives_nothing(monkeypatch):
    put(monkeypatch, fake_module("torch"))
    assert list(TorchProbe().read()) == []


# -- peaks, waiting, expectations -----------------------------------------------------------------------------------


def test_a_new_peak_begins_on_each_device_by_its_index(monkeypatch):
    torch = Torch(devices=2)
    put(monkeypatch, torch.module)
    TorchProbe().reset_peak()
    assert torch.resets == [0, 1]


def test_no_peak_begins_on_a_device_that_is_not_initialised(monkeypatch):
    torch = Torch(ready=False)
    put(monkeypatch, torch.module)
    TorchProbe().reset_peak()
    assert torch.resets == []


def test_initialised_backends_are_named():
    assert list(initialised_backends(Torch("xpu").module)) == ["xpu"]
    assert list(initialised_backends(Torch("xpu", ready=False).module)) == []


def test_another_accelerator_is_expected_where_its_module_says_so():
    torch = Torch("npu")
    assert accelerator_is_expected(torch.module)
    torch.module.npu.is_available = lambda: False
    assert not accelerator_is_expected(torch.module)
    torch.module.npu.is_available = forbidden("npu")
    assert not accelerator_is_expected(torch.module)


def test_a_cuda_build_expects_a_gpu_only_where_the_machine_shows_one(monkeypatch):
    """`is_available()` is not asked: it calls cuInit, and the process can no longer fork."""
    torch = Torch("cuda")
    torch.module.cuda.is_available = forbidden("cuda.is_available")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not accelerator_is_expected(torch.module)


def test_a_cpu_build_expects_nothing():
    assert not accelerator_is_expected(Torch(backend=None).module)
