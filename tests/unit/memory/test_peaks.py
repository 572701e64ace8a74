"""Several peaks over one counter: none of them takes from another what it has seen."""

from pytest_gpuclean.memory.gauge import Gauge
from pytest_gpuclean.memory.peaks import Peaks
from pytest_gpuclean.model.memory import Account
from pytest_gpuclean.units import MiB
from unit.fakes import ScriptedProbe

FAKE = Account("fake:0", "fake")


class StuckProbe(ScriptedProbe):
    """A framework that keeps one peak for the whole run, as JAX does."""

    def __init__(self):
        super().__init__()
        self.resets = 0

    def reset_peak(self):
        self.resets += 1


class Device:
    def __init__(self, probe=None):
        self.probe = probe or ScriptedProbe()
        self.probe.peak = 0
        self.gauge = Gauge("device", [self.probe])
        self.peaks = Peaks(self.gauge)

    def begin(self):
        return self.peaks.begin(self.gauge.read(), self.gauge.read)[0]

    def rise(self, size_bytes):
        self.probe.peak = max(self.probe.peak, self.probe.in_use + size_bytes)

    def highest(self, peak):
        return peak.highest(self.gauge.read()).get(FAKE)


def test_a_peak_is_the_most_since_it_began():
    device = Device()
    device.rise(64 * MiB)
    peak = device.begin()
    assert device.highest(peak) == 0
    device.rise(8 * MiB)
    assert device.highest(peak) == 8 * MiB


def test_a_peak_is_at_least_what_is_in_use():
    device = Device()
    device.probe.in_use = device.probe.peak = 4 * MiB
    assert device.highest(device.begin()) == 4 * MiB


def test_one_that_begins_later_takes_nothing_from_one_that_goes_on():
    device = Device()
    module = device.begin()
    device.rise(64 * MiB)
    test = device.begin()
    device.rise(8 * MiB)
    assert (device.highest(test), device.highest(module)) == (8 * MiB, 64 * MiB)


def test_one_that_has_ended_is_not_looked_at_any_more():
    device = Device()
    ended = device.begin()
    device.peaks.end(ended)
    device.rise(64 * MiB)
    device.begin()
    device.rise(8 * MiB)
    assert device.highest(ended) == 8 * MiB


def test_nothing_is_reset_where_nothing_has_moved():
    device = Device(StuckProbe())
    for _ in range(3):
        device.begin()
    assert device.probe.resets == 0


def test_a_peak_that_cannot_be_reset_tells_nothing_until_it_is_exceeded():
    device = Device(StuckProbe())
    device.rise(64 * MiB)
    peak = device.begin()
    device.rise(8 * MiB)
    assert device.highest(peak) is None
    device.rise(65 * MiB)
    assert device.highest(peak) == 65 * MiB


def test_a_peak_that_cannot_be_reset_is_tried_once_and_again_once_it_has_risen():
    device = Device(StuckProbe())
    device.rise(64 * MiB)
    for _ in range(3):
        device.begin()
    assert device.probe.resets == 1
    device.rise(65 * MiB)
    device.begin()
    assert device.probe.resets == 2


def test_a_peak_that_is_known_to_reset_is_not_read_again_for_it():
    device = Device()
    for size in (MiB, 2 * MiB, 3 * MiB):
        device.rise(size)
        now = device.gauge.read()
        looks = device.probe.looks
        peak, begin = device.peaks.begin(now, device.gauge.read)
        device.peaks.end(peak)
        assert begin.readings[0].peak_bytes == 0
    assert device.probe.looks == looks
    device.rise(MiB)
    assert device.highest(peak) == MiB


def test_a_device_that_keeps_no_peak_has_none():
    device = Device()
    device.probe.peak = None
    assert device.highest(device.begin()) is None


def test_a_device_that_turns_up_later_has_its_whole_peak():
    device = Device()
    device.probe.is_there = False
    peak = device.begin()
    device.probe.is_there = True
    device.rise(8 * MiB)
    assert device.highest(peak) == 8 * MiB
