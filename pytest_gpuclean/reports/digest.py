"""What the runs of a report add up to, for the formats that people read."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.reports.data import Report, TestEntry
from pytest_gpuclean.units import format_seconds, format_size

MOST_PEAKS = 10


@dataclass(slots=True)
class Digest:
    """Totals, and the few tests that have something to tell."""

    tests: int = 0
    seconds: float = 0.0
    given_back_bytes: int = 0
    cleanups: int = 0
    cost_seconds: float = 0.0
    leaks: int = 0
    """Those that nothing excuses."""
    leaked_bytes: int = 0
    excused: int = 0
    stopped: int = 0
    """Processes that were left behind and are gone."""
    alive: int = 0
    """Those that are still there."""
    told: list[TestEntry] = field(default_factory=list)
    """Tests that leaked, left processes or had trouble."""
    peaks: list[tuple[int, str, str]] = field(default_factory=list)
    """The highest: bytes, device, test."""
    outcomes: dict[str, int] = field(default_factory=dict)

    def headline(self) -> str:
        """Say it in a few words."""
        if not self.leaks:
            return "no leaks" if not self.excused else f"no new leaks, {self.excused} known or allowed"
        leaks = f"{self.leaks} leak{'s' if self.leaks > 1 else ''}, {format_size(self.leaked_bytes)}"
        return f"{leaks}; {self.excused} more known or allowed" if self.excused else leaks

    def facts(self) -> Iterator[str]:
        """Say the totals, a few words each."""
        yield f"{self.tests:,} test{'s' * (self.tests != 1)} in {format_seconds(self.seconds)}"
        if self.given_back_bytes:
            cleanups = f" in {self.cleanups:,} cleanups" if self.cleanups else ""
            yield f"{format_size(self.given_back_bytes)} given back{cleanups}"
        if self.stopped:
            yield f"{self.stopped} process{'es' * (self.stopped != 1)} stopped"
        if self.alive:
            yield f"{self.alive} process{'es' * (self.alive != 1)} still there"
        share = f" ({100 * self.cost_seconds / self.seconds:.1f} %)" if self.seconds else ""
        yield f"cost {format_seconds(self.cost_seconds)}{share}"


def digest(report: Report) -> Digest:
    """Add the runs of a report up, in one go over its tests.

    Args:
        report: with one or more runs.
    """
    found = Digest()
    for run in report.runs:
        found.given_back_bytes += run.given_back_bytes
        found.cleanups += run.cleanups
        found.cost_seconds += run.cost_seconds
        for aside in run.asides:
            _count_left(found, aside.left)
        for entry in run.tests:
            _count(found, entry)
    found.peaks.sort(reverse=True)
    return found


def held_by(leak: Leak) -> str:
    """Name the first holder of a leak; empty where it was not looked up."""
    holders = leak.explanation.holders if leak.explanation is not None else ()
    return holders[0].chain if holders else ""


def _count(found: Digest, entry: TestEntry) -> None:
    found.tests += entry.outcome != "rerun"
    found.outcomes[entry.outcome] = found.outcomes.get(entry.outcome, 0) + 1
    found.seconds += entry.seconds
    for leak in entry.leaks:
        found.excused += leak.excused
        found.leaks += not leak.excused
        found.leaked_bytes += 0 if leak.excused else leak.leaked_bytes
    _count_left(found, entry.left)
    if entry.leaks or entry.left or entry.problems:
        found.told.append(entry)
    for use in entry.memory:
        if use.peak_bytes:
            peak = (use.peak_bytes, use.device, entry.test)
            if len(found.peaks) < MOST_PEAKS:
                heapq.heappush(found.peaks, peak)
            else:
                heapq.heappushpop(found.peaks, peak)


def _count_left(found: Digest, left: Iterable[LeftProcess]) -> None:
    for process in left:
        found.alive += process.is_alive
        found.stopped += not process.is_alive
