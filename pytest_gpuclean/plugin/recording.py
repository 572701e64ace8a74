"""What each test used, noted where it runs: for the report, and as properties for JUnit and its like."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_gpuclean.model.memory import HEAP, Bytes, Snapshot
from pytest_gpuclean.model.records import TestRecord
from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.reports.data import DeviceUse, FixtureSpan
from pytest_gpuclean.reports.junit import PREFIX, properties
from pytest_gpuclean.window import Course

ATTRIBUTE = "gpuclean_figures"
"""On a teardown report: it crosses every process border that pytest has."""
_READERS = ("xmlpath", "report_log", "htmlpath", "json_report")
"""Options of pytest and of other plugins whose files show the properties of tests."""
_HEAP_MOVED_BYTES = 64 * 1024
"""Less than that is the runner's own coming and going."""


@dataclass(slots=True)
class Figures:
    """One attempt of a test, in numbers."""

    started_at: float
    seconds: float
    cost_seconds: float
    given_back_bytes: int
    uses: tuple[DeviceUse, ...] = ()
    spans: tuple[FixtureSpan, ...] = ()
    """Wider fixtures that have come to their end since the last test."""

    def to_wire(self) -> list[Any]:
        """Write it as short as it gets: every test of a run has one."""
        uses = [[u.device, u.begin_bytes, u.end_bytes, u.reserved_bytes, u.peak_bytes] for u in self.uses]
        spans = [[s.name, s.scope, s.base, s.started_at, s.ended_at] for s in self.spans]
        return [self.started_at, self.seconds, self.cost_seconds, self.given_back_bytes, uses, spans]

    @classmethod
    def from_wire(cls, wire: list[Any]) -> Figures:
        """Read what `to_wire` wrote."""
        started_at, seconds, cost_seconds, given_back_bytes, uses, spans = wire
        names = ("device", "begin_bytes", "end_bytes", "reserved_bytes", "peak_bytes")
        span_names = ("name", "scope", "base", "started_at", "ended_at")
        return cls(
            started_at,
            seconds,
            cost_seconds,
            given_back_bytes,
            tuple(DeviceUse(**dict(zip(names, use, strict=True))) for use in uses),
            tuple(FixtureSpan(**dict(zip(span_names, span, strict=True))) for span in spans),
        )


@dataclass(slots=True)
class Recorder:
    """Notes what the tests of this process use."""

    for_report: bool
    """Whether the report wants every test."""
    for_properties: bool
    """Whether what a test used and gave back becomes its properties; else what it leaked alone."""
    _began: tuple[float, float] = (0.0, 0.0)
    _test: str = ""
    _attempts: list[Figures] = field(default_factory=list)
    """Of the test that runs now; those that went before it are with the controller."""
    _known: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What was last said of each device: held and reserved."""
    _known_end: Snapshot | None = None
    _fixtures: dict[int, tuple[str, str, str, float]] = field(default_factory=dict)
    _spans: list[FixtureSpan] = field(default_factory=list)

    @property
    def notes_all(self) -> bool:
        """Whether tests with nothing to tell are noted too."""
        return self.for_report or self.for_properties

    def begin(self, item: pytest.Item) -> None:
        """Note that a test begins, or another attempt of the one that has just ended."""
        self._began = time.time(), time.perf_counter()
        if item.nodeid != self._test:
            self._test, self._attempts = item.nodeid, []
        elif item.user_properties:
            item.user_properties[:] = without_own(item.user_properties)

    def end(self, course: Course | None, cost_seconds: float, given_back_bytes: int) -> Figures:
        """Note that it ends.

        Args:
            course: what was in use from its begin to its end; None where that was not measured.
            cost_seconds: what the plugin took of it.
            given_back_bytes: by cleaning and judging.
        """
        started_at, began = self._began
        spans, self._spans = tuple(self._spans), []
        uses: tuple[DeviceUse, ...] = ()
        if course is not None and not (course.begin is course.end is self._known_end):
            uses = tuple(use for use in uses_of(course) if self._is_news(use))
            self._known |= {use.device: (use.end_bytes, use.reserved_bytes) for use in uses}
            self._known_end = course.end
        return Figures(started_at, time.perf_counter() - began, cost_seconds, given_back_bytes, uses, spans)

    def attach(self, item: pytest.Item, report: pytest.TestReport, figures: Figures, record: TestRecord | None) -> None:
        """Write what a test used onto it, and onto the report of its teardown.

        Args:
            item: the test.
            report: of its teardown, which is made already.
            figures: of this attempt.
            record: what else there is to tell; None where there is nothing.
        """
        if self.for_report:
            self._attempts.append(figures)  # a plugin that runs a test again reports its last teardown alone
            setattr(report, ATTRIBUTE, [attempt.to_wire() for attempt in self._attempts])
        uses = figures.uses if self.for_properties else ()
        given_back_bytes = figures.given_back_bytes if self.for_properties else 0
        own = properties(uses, record.leaks if record else (), given_back_bytes)
        if own:
            item.user_properties[:] = [*without_own(item.user_properties), *own]
            report.user_properties = list(item.user_properties)
        if own and getattr(item.config.option, "htmlpath", None):
            report.extras = [*getattr(report, "extras", ()), _extra(own)]  # type: ignore[attr-defined]

    def begin_fixture(self, key: int, name: str, scope: str, base: str) -> None:
        """Note that the setup of a wider fixture begins."""
        self._fixtures[key] = (name, scope, base, time.time())

    def end_fixture(self, key: int) -> None:
        """Note that it comes to its end."""
        begun = self._fixtures.pop(key, None)
        if begun is not None:
            name, scope, base, started_at = begun
            self._spans.append(
                FixtureSpan(name=name, scope=scope, base=base, started_at=started_at, ended_at=time.time())
            )

    def _is_news(self, use: DeviceUse) -> bool:
        slack = _HEAP_MOVED_BYTES if use.device == HEAP.device else 0
        held, reserved = self._known.get(use.device, (-slack - 1, -slack - 1))
        peak = use.end_bytes if use.peak_bytes is None else use.peak_bytes
        moves = (use.begin_bytes - held, use.end_bytes - use.begin_bytes, use.reserved_bytes - reserved)
        return peak > max(use.begin_bytes, use.end_bytes) or any(abs(move) > slack for move in moves)


def recorder_for(config: pytest.Config, settings: Settings) -> Recorder:
    """Make the recorder of a run, for those who are going to read what it notes."""
    wanted = any(getattr(config.option, name, None) for name in _READERS)
    return Recorder(for_report=bool(settings.reports), for_properties=wanted)


def uses_of(course: Course) -> Iterable[DeviceUse]:
    """Say what a window did to each device; several frameworks on one device add up."""
    begin, end = _allocated(course.begin), _allocated(course.end)
    reserved: dict[str, int] = {}
    for reading in course.end.readings:
        reserved[reading.device] = reserved.get(reading.device, 0) + reading.reserved_bytes
    for device, end_bytes in end.items():
        begin_bytes = begin.get(device, 0)
        yield DeviceUse(
            device=device,
            begin_bytes=begin_bytes,
            end_bytes=end_bytes,
            reserved_bytes=reserved[device],
            peak_bytes=_peak(course.peaks, device, begin_bytes, end_bytes),
        )


def _extra(own: list[tuple[str, str | int]]) -> dict[str, str]:
    """Write properties the way that pytest-html 4 shows things: it leaves properties out."""
    text = "\n".join(f"{name}: {value}" for name, value in own)
    return {"name": "gpuclean", "format_type": "text", "content": text, "mime_type": "text/plain", "extension": "txt"}


def without_own(properties: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """Leave out what an earlier attempt of the test has written."""
    return [pair for pair in properties if not str(pair[0]).startswith(PREFIX)]


def _allocated(snapshot: Snapshot) -> dict[str, int]:
    totals: dict[str, int] = {}
    for reading in snapshot.readings:
        totals[reading.device] = totals.get(reading.device, 0) + reading.allocated_bytes
    return totals


def _peak(peaks: Bytes, device: str, begin_bytes: int, end_bytes: int) -> int | None:
    found = [size for account, size in peaks.items() if account.device == device]
    return max(*found, begin_bytes, end_bytes) if found else None
