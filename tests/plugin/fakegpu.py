"""A device of nothing but numbers, for the inner test suites: `fake:0` and `fake:1`.

It is copied next to them, so that each inner run starts with an empty one.
"""

import pytest

from pytest_gpuclean import Reading

KiB = 1024
MiB = 1024 * KiB

IN_USE = [0, 0]
PEAK = [0, 0]
CAPACITY = [1024 * MiB, 1024 * MiB]
LOST = [False, False]
EVER = [0, 0]


class Buffer:
    """Memory on the device, from the call until nobody refers to it any more."""

    def __init__(self, size_bytes, device=0):
        self.size_bytes, self.device = size_bytes, device
        IN_USE[device] += size_bytes
        EVER[device] += size_bytes
        PEAK[device] = max(PEAK[device], IN_USE[device])

    def __del__(self):
        IN_USE[self.device] -= self.size_bytes


class OutOfMemoryError(RuntimeError):
    __module__ = "torch"


class AcceleratorError(RuntimeError):
    __module__ = "torch"


def allocate(size_bytes, device=0):
    if LOST[device]:
        raise AcceleratorError(f"fake error: device {device} is lost")
    if IN_USE[device] + size_bytes > CAPACITY[device]:
        raise OutOfMemoryError(f"fake out of memory. Tried to allocate {size_bytes / MiB:.2f} MiB. GPU {device} has a")
    return Buffer(size_bytes, device)


class FakeProbe:
    source = "fake"

    def read(self):
        for index in range(2):
            yield Reading(
                device=f"fake:{index}",
                source="fake",
                allocated_bytes=IN_USE[index],
                reserved_bytes=IN_USE[index],
                peak_bytes=PEAK[index],
                total_bytes=EVER[index],
            )

    def reset_peak(self):
        PEAK[:] = IN_USE


class CountingCleaner:
    """Gives nothing back, and writes down in which test it was called."""

    name = "counting"

    def __init__(self):
        self.calls = []
        self.test = ""

    def clean(self, occasion):
        self.calls.append((self.test, occasion))
        return "counted"


CLEANER = CountingCleaner()


@pytest.hookimpl(optionalhook=True)  # runs without the plugin have it too
def pytest_gpuclean_probes(config):
    return [FakeProbe()]
