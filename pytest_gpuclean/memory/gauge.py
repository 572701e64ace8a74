"""Reads all probes at once, and knows which memory the run watches."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Sequence

from pytest_gpuclean.memory import DEVICE_PROBES, run_has_accelerator
from pytest_gpuclean.memory.foreign import ForeignProbe, source_of
from pytest_gpuclean.memory.host import HostProbe
from pytest_gpuclean.memory.interface import Probe, first_line
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.memory import Bytes, Reading, Snapshot

_ALWAYS_LOADED = "sys"
"""Stands for the framework of somebody's probe: it is asked whatever is loaded."""
_PAGE_BYTES = 4096


class Gauge:
    """One look at everything that is in use, as often as the engine asks."""

    def __init__(
        self,
        watch: str = "auto",
        probes: Sequence[Probe] | None = None,
        host: HostProbe | None = None,
        accelerator_expected: Callable[[], bool] = run_has_accelerator,
    ) -> None:
        """Set the gauge up.

        Args:
            watch: `auto` (devices where the run has an accelerator, else host memory), `device`, `host` or `all`.
            probes: of devices; all that are known by default.
            host: the probe of the heap.
            accelerator_expected: tells, before a device is in use, whether the run has one.
        """
        self.watch = watch
        self._probes = list(map(_with_package, [probe() for probe in DEVICE_PROBES] if probes is None else probes))
        self._host = host or HostProbe()
        self._accelerator_expected = accelerator_expected
        self._device_seen = False
        self._expected = False
        self._modules_looked_at = 0
        self._last = Snapshot()
        self._last_answers: list[Reading | Unavailable] = []
        self._may_repeat = False
        """Whether the last reading is that of the same answers, whatever else has happened."""
        self.unavailable: dict[str, str] = {}
        """Each source that could not be read at some time, with the reason."""
        self.lost: dict[str, str] = {}
        """Each device that answers no more, with the reason: what its allocators say of it is not believed."""
        self.devices_watched = watch != "host"
        """Whether device memory counts."""
        self.reads_host = False
        """Whether host memory counted at the last reading."""

    @property
    def host_watched(self) -> bool:
        """Whether host memory counts: by `auto` only as long as the run has no accelerator."""
        if self.watch != "auto":
            return self.watch in ("host", "all")
        if self._device_seen:
            return False
        if len(sys.modules) != self._modules_looked_at:  # a framework may have been imported since
            self._modules_looked_at = len(sys.modules)
            self._expected = self._accelerator_expected()
        return not self._expected

    @property
    def host_is_slow(self) -> bool:
        """Whether reading the heap costs too much to do it for each test."""
        return self._host.is_slow

    @property
    def lost_reason(self) -> str:
        """Why nothing shall call a driver now; empty where all devices answer."""
        return "; ".join(f"{device} {reason}" for device, reason in self.lost.items())

    def read(self, *, with_heap: bool = True, roughly: bool = False) -> Snapshot:
        """Read what is watched; a source that raises is told as unavailable.

        Args:
            with_heap: whether to read the heap too, where host memory is watched.
            roughly: whether a heap that has moved by no more than a page may be told as it was.
        """
        answers: list[Reading | Unavailable] = []
        for package, probe in self._probes:
            if package in sys.modules:
                _ask(probe, probe.read, answers)
        of_heap: list[Reading | Unavailable] = []
        if with_heap and self.host_watched:
            _ask(self._host, self._read_roughly if roughly else self._host.read, of_heap)
        # A source that gives the very same reading again says that nothing has changed.
        given = answers + of_heap
        same = len(given) == len(self._last_answers) and all(map(operator.is_, given, self._last_answers))
        if not (same and self._may_repeat) or self.lost:
            self._last_answers = given
            self._last = self._look_into(answers, of_heap)
            # Until a device is seen, whether host memory is watched changes with what is imported.
            settled = with_heap or self._device_seen or self.watch != "auto"
            self._may_repeat = settled and not self._last.unavailable
        return self._last

    def _read_roughly(self) -> Sequence[Reading | Unavailable]:
        return self._host.read(_PAGE_BYTES)

    def _look_into(self, answers: list[Reading | Unavailable], of_heap: list[Reading | Unavailable]) -> Snapshot:
        readings: list[Reading] = []
        gaps = [Unavailable(device, reason) for device, reason in self.lost.items()] if self.lost else []
        _sort(answers, readings, gaps)
        if self.lost:
            readings = [reading for reading in readings if reading.device not in self.lost]
        if readings:
            on_devices = [reading for reading in readings if reading.device != "cpu"]
            self._device_seen = self._device_seen or (self.devices_watched and bool(on_devices))
            on_host = [reading for reading in readings if reading.device == "cpu"] if self.host_watched else []
            readings = on_host + on_devices if self.devices_watched else on_host
        self.reads_host = self.host_watched
        if self.reads_host:
            _sort(of_heap, readings, gaps)
        for gap in gaps:
            self.unavailable.setdefault(gap.source, gap.reason)
        last = self._last
        is_same = len(readings) == len(last.readings) and all(map(operator.is_, readings, last.readings))
        return Snapshot(tuple(readings), tuple(gaps)) if gaps or last.unavailable or not is_same else last

    def reset_peaks(self) -> None:
        """Begin a new peak on every device, where the source can."""
        for _, probe in self._probes:
            try:
                probe.reset_peak()
            except Exception as error:
                self.unavailable.setdefault(f"{source_of(probe)} peak", first_line(error))


def held(snapshot: Snapshot) -> Bytes:
    """What live objects hold, by account; several readings of one account add up."""
    totals: Bytes = {}
    for reading in snapshot.readings:
        account = reading.account
        totals[account] = totals.get(account, 0) + reading.held_bytes
    return totals


def in_use(snapshot: Snapshot) -> dict[str, int]:
    """What allocators hold by device, live objects and caches together."""
    totals: dict[str, int] = {}
    for reading in snapshot.readings:
        totals[reading.device] = totals.get(reading.device, 0) + reading.reserved_bytes
    return totals


def ever_allocated(snapshot: Snapshot) -> Bytes:
    """What was ever allocated by account, where the source says so."""
    return {r.account: r.total_bytes for r in snapshot.readings if r.total_bytes is not None}


def never_used(snapshot: Snapshot) -> frozenset[str]:
    """The devices that torch knows, and on which it has never allocated anything."""
    return frozenset(r.device for r in snapshot.readings if r.source == "torch" and r.total_bytes == 0)


def rounds(snapshot: Snapshot) -> bool:
    """Whether some torch allocator tells only rounded figures."""
    return any(r.source == "torch" and r.requested_bytes is None for r in snapshot.readings)


def _ask(
    probe: Probe, read: Callable[[], Iterable[Reading | Unavailable]], answers: list[Reading | Unavailable]
) -> None:
    try:
        answers += read()
    except (Exception, SystemExit) as error:
        answers.append(Unavailable(source_of(probe), first_line(error)))


def _sort(answers: list[Reading | Unavailable], readings: list[Reading], gaps: list[Unavailable]) -> None:
    for answer in answers:
        if isinstance(answer, Reading):
            readings.append(answer)
        else:
            gaps.append(answer)


def _with_package(probe: Probe) -> tuple[str, Probe]:
    """Give a probe with the package without which there is nothing to ask it for."""
    if isinstance(probe, DEVICE_PROBES):
        return probe.package, probe
    return _ALWAYS_LOADED, ForeignProbe(probe)
