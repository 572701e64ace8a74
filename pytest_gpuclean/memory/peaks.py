"""The most that was in use since a beginning, where many beginnings share the one peak that a source keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pytest_gpuclean.memory.gauge import Gauge
from pytest_gpuclean.model.memory import Account, Bytes, Reading, Snapshot


class Peak:
    """The most that was in use since it began, by account; an account that is missing was not measured."""

    def __init__(self, begin: Snapshot) -> None:
        self._above = {r.account: _stale_bytes(r) for r in begin.readings if r.peak_bytes is not None}
        self._highest: Bytes = {}

    def add(self, now: Snapshot) -> None:
        """Take in a reading that was taken since."""
        for reading in now.readings:
            if reading.peak_bytes is None:
                continue
            account = reading.account
            # A peak that could not be reset (JAX keeps one for the whole run) tells something once it is exceeded.
            if reading.peak_bytes > self._above.get(account, -1):
                self._highest[account] = max(self._highest.get(account, 0), reading.peak_bytes)

    def highest(self, now: Snapshot) -> Bytes:
        """Say what the most was, up to a reading that was just taken."""
        self.add(now)
        return dict(self._highest)


class Peaks:
    """Begins peaks, and lets none of those that are still looked at lose what it has seen."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._open: list[Peak] = []
        self._stuck: dict[Account, int] = {}
        """Peaks that no reset brings down: another reset is worth its while once they have risen."""
        self._resets: set[Account] = set()
        """Those that a reset was seen to bring down to what is in use: that need not be read again."""

    def begin(self, now: Snapshot, read: Callable[[], Snapshot]) -> tuple[Peak, Snapshot]:
        """Begin one.

        Args:
            now: a reading that was just taken.
            read: takes another.

        Returns:
            The peak, and the reading that it begins with.
        """
        used = [reading.account for reading in now.readings if self._is_used(reading)]
        if used:
            for peak in self._open:
                peak.add(now)
            self._gauge.reset_peaks()
            now = self._after_reset(now) if self._resets.issuperset(used) else self._learn(read())
        peak = Peak(now)
        self._open.append(peak)
        return peak, now

    def end(self, peak: Peak) -> None:
        """Look at one no more."""
        self._open = [other for other in self._open if other is not peak]

    def _learn(self, now: Snapshot) -> Snapshot:
        """See which peaks the reset has brought down."""
        for reading in now.readings:
            if reading.peak_bytes is not None and _stale_bytes(reading) < 0:
                self._resets.add(reading.account)
            elif reading.peak_bytes is not None:
                self._stuck[reading.account] = reading.peak_bytes
        return now

    def _after_reset(self, before: Snapshot) -> Snapshot:
        readings = [
            dataclasses.replace(reading, peak_bytes=reading.allocated_bytes)
            if reading.account in self._resets and _stale_bytes(reading) >= 0
            else reading
            for reading in before.readings
        ]
        return Snapshot(tuple(readings), before.unavailable)

    def _is_used(self, reading: Reading) -> bool:
        return _stale_bytes(reading) >= 0 and self._stuck.get(reading.account) != reading.peak_bytes


def _stale_bytes(reading: Reading) -> int:
    """The peak of an earlier time; less than any where it is what is in use now."""
    peak = reading.peak_bytes
    return -1 if peak is None or peak <= reading.allocated_bytes else peak
