"""Whether the devices in use still answer."""

import threading

import pytest

from pytest_gpuclean.memory.health import Answer, HealthCheck
from unit.fakes import fake_module, put, remove


class Device:
    """What `torch.accelerator.synchronize` finds on one device."""

    def __init__(self, used=True, errors=()):
        self.used, self.errors, self.calls = used, list(errors), 0
        self.hangs = None

    def wait(self):
        self.calls += 1
        if self.hangs is not None:
            self.hangs.wait()
        if self.errors:
            error = self.errors[0]
            if len(self.errors) > 1:
                self.errors.pop(0)
            if error is not None:
                raise error


@pytest.fixture
def world(monkeypatch):
    """Let torch be loaded with these devices; hand out a function that does."""

    def load(*devices, is_ready=True):
        def stats(index):
            total = 512 if devices[index].used else 0
            return {"allocated_bytes": {"all": {"allocated": total}}}

        core = fake_module(
            "torch._C", _accelerator_isAllocatorInitialized=lambda: is_ready, _accelerator_getDeviceStats=stats
        )
        kind = type("device", (), {"type": "cuda"})
        accelerator = fake_module(
            "torch.accelerator",
            current_accelerator=lambda: kind,
            synchronize=lambda index: devices[index].wait(),
        )
        cuda = fake_module("torch.cuda", device_count=lambda: len(devices))
        torch = fake_module("torch", _C=core, accelerator=accelerator, cuda=cuda)
        put(monkeypatch, torch)
        return devices

    return load


LOST = RuntimeError("CUDA error: device-side assert triggered\nmore")


def test_without_torch_nobody_is_asked(monkeypatch):
    remove(monkeypatch, "torch")
    assert HealthCheck(1.0).ask() == []


def test_a_device_that_was_never_used_is_not_brought_up(world):
    used, unused = world(Device(), Device(used=False))
    assert HealthCheck(1.0).ask() == [Answer("cuda:0")]
    assert (used.calls, unused.calls) == (1, 0)


def test_devices_that_are_not_initialised_are_not_asked(world):
    world(Device(), is_ready=False)
    assert HealthCheck(1.0).ask() == []


def test_an_error_at_every_call_sticks(world):
    world(Device(errors=[LOST]), Device())
    error = "RuntimeError: CUDA error: device-side assert triggered"
    assert HealthCheck(1.0).ask() == [Answer("cuda:0", error), Answer("cuda:1")]


def test_an_error_that_goes_with_the_first_call_does_not_stick(world):
    world(Device(errors=[LOST, None]))
    assert HealthCheck(1.0).ask() == [Answer("cuda:0")]


def test_a_device_that_hangs_is_waited_for_once_and_blocks_nobody(world):
    hung, behind = world(Device(), Device())
    hung.hangs = threading.Event()
    check = HealthCheck(0.05)
    silent = [Answer("cuda:0", is_silent=True), Answer("cuda:1", is_silent=True)]
    assert check.ask() == silent
    assert check.ask() == silent
    assert (hung.calls, behind.calls) == (1, 0)
    hung.hangs.set()
    check = HealthCheck(5.0)
    assert check.ask() == [Answer("cuda:0"), Answer("cuda:1")]
