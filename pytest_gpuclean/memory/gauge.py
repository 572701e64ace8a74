"""Reads all probes at once, and knows which memory the run watches."""

from __future__ import annotations

import dataclasses
import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pytest_gpuclean.memory import DEVICE_PROBES, run_has_accelerator
from pytest_gpuclean.memory.host import HostProbe
from pytest_gpuclean.memory.interface import Probe, first_line
from pytest_gpuclean.model import Bytes, Reading, Snapshot, Unavailable

_OPTIONAL = ("requested_bytes", "peak_bytes", "total_bytes")
_FIGURES = ("allocated_bytes", "reserved_bytes", *_OPTIONAL)


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
        self._probes = list(probes) if probes is not None else [probe() for probe in DEVICE_PROBES]
        self._host = host or HostProbe()
        self._accelerator_expected = accelerator_expected
        self._device_seen = False
        self._expected = False
        self._modules_looked_at = 0
        self._last = Snapshot()
        self.unavailable: dict[str, str] = {}
        """Each source that could not be read at some time, with the reason."""
        self.lost: dict[str, str] = {}
        """Each device that answers no more, with the reason: what its allocators say of it is not believed."""

    @property
    def devices_watched(self) -> bool:
        """Whether device memory counts."""
        return self.watch != "host"

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

    def read(self, *, with_heap: bool = True) -> Snapshot:
        """Read what is watched; a source that raises is told as unavailable.

        Args:
            with_heap: whether to read the heap too, where host memory is watched.
        """
        readings: list[Reading] = []
        gaps: list[Unavailable] = []
        for probe in self._probes:
            _read_into(probe, readings, gaps)
        if self.lost:
            readings = [reading for reading in readings if reading.device not in self.lost]
            gaps += [Unavailable(device, reason) for device, reason in self.lost.items()]
        if self.devices_watched:
            self._device_seen = self._device_seen or any(reading.device != "cpu" for reading in readings)
        else:
            readings = [reading for reading in readings if reading.device == "cpu"]
        if not self.host_watched:
            readings = [reading for reading in readings if reading.device != "cpu"]
        elif with_heap:
            _read_into(self._host, readings, gaps)
        for gap in gaps:
            self.unavailable.setdefault(gap.source, gap.reason)
        last = self._last
        # A source that gives the very same reading again says that nothing has changed.
        is_same = len(readings) == len(last.readings) and all(map(operator.is_, readings, last.readings))
        if gaps or last.unavailable or not is_same:
            self._last = Snapshot(tuple(readings), tuple(gaps))
        return self._last

    def reset_peaks(self) -> None:
        """Begin a new peak on every device, where the source can."""
        for probe in self._probes:
            try:
                probe.reset_peak()
            except Exception as error:
                self.unavailable.setdefault(f"{_source_of(probe)} peak", first_line(error))


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


def rounds(snapshot: Snapshot) -> bool:
    """Whether some torch allocator tells only rounded figures."""
    return any(r.source == "torch" and r.requested_bytes is None for r in snapshot.readings)


def _read_into(probe: Probe, readings: list[Reading], gaps: list[Unavailable]) -> None:
    try:
        found: Iterable[Reading | Unavailable] = probe.read()
        for answer in found:
            if isinstance(answer, Reading):
                readings.append(_checked(answer))
            elif isinstance(answer, Unavailable):
                gaps.append(answer)
            else:
                gaps.append(Unavailable(_source_of(probe), f"gave {type(answer).__name__}, which is no Reading"))
    except (Exception, SystemExit) as error:
        gaps.append(Unavailable(_source_of(probe), first_line(error)))


def _checked(reading: Reading) -> Reading:
    """Make sure of whole numbers: somebody's probe may give NumPy's, or none."""
    if type(reading.allocated_bytes) is int and type(reading.reserved_bytes) is int:
        return reading
    figures: dict[str, Any] = {
        name: value if value is None and name in _OPTIONAL else operator.index(value)
        for name, value in ((name, getattr(reading, name)) for name in _FIGURES)
    }
    return dataclasses.replace(reading, **figures)


def _source_of(probe: object) -> str:
    source = getattr(probe, "source", None)
    return source if isinstance(source, str) else type(probe).__name__
