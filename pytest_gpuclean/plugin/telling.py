"""What the run's controller does: collect the records of all processes, and tell them."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from pytest_gpuclean.cards import unaccounted_lines
from pytest_gpuclean.memory.gauge import Gauge
from pytest_gpuclean.memory.nvml import Nvml
from pytest_gpuclean.model import Wire
from pytest_gpuclean.model.records import DeviceFailure, RunReport, TestRecord
from pytest_gpuclean.plugin.baseline import Baseline
from pytest_gpuclean.plugin.guard import guard_of
from pytest_gpuclean.plugin.names import worker_of
from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.reports.terminal import header_line, stage_lines, summary_lines
from pytest_gpuclean.units import format_size

_ATTRIBUTE = "gpuclean"
"""On a teardown report, and in a worker's output."""
_FAILURES = "gpuclean_failures"
"""On the report of a phase that failed, or that was run again, for what happened to a device."""
DESELECTED = "gpuclean_deselected"
"""In a worker's output."""


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """Whether this process hands its tests out to workers."""
    return not is_worker(config) and getattr(config.option, "dist", "no") != "no"


def verbosity(config: pytest.Config) -> int:
    """Return how often `-v` was said, less `-q`; 0 where `-p no:terminal` has taken these options away."""
    return int(getattr(config.option, "verbose", 0))


def attach(report: pytest.TestReport, records: list[TestRecord]) -> None:
    """Put the records of a test on its teardown report: it crosses every process border that pytest has."""
    setattr(report, _ATTRIBUTE, [record.to_wire() for record in records])


def has_records(report: pytest.TestReport) -> bool:
    """Whether any were put on a report."""
    return bool(getattr(report, _ATTRIBUTE, None))


def say(config: pytest.Config, text: str) -> None:
    """Print a line at once, in the middle of the run; a worker has no terminal."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        terminal.ensure_newline()
        terminal.write_line(f"gpuclean: {text}")


def attach_failure(report: pytest.TestReport, failure: DeviceFailure) -> None:
    """Put what happened to a device on the report of the phase in which it did."""
    setattr(report, _FAILURES, [*getattr(report, _FAILURES, ()), failure.to_wire()])


def records_of(report: pytest.TestReport) -> list[TestRecord]:
    """Read the records on a report, less the steps of cleaning: those are for the terminal alone."""
    found = map(TestRecord.from_wire, getattr(report, _ATTRIBUTE, None) or ())
    return [dataclasses.replace(record, cleanups=()) for record in found]


class Telling:
    """Gathers the records, and prints the header, the stages under `-v`, and the summary."""

    def __init__(self, config: pytest.Config, settings: Settings, baseline: Baseline | None = None) -> None:
        self._config = config
        self._settings = settings
        self.baseline = baseline
        """The leaks that are known, if any are."""
        self._guard = guard_of(config, "something of this run is not told")
        self._begin = time.perf_counter()
        self._processes = 0
        self._gauge: Gauge | None = None
        self._nvml: Nvml | None = None
        self._usage_error = ""
        self.notes: list[str] = []
        """What the header says besides."""
        self.last: list[TestRecord] = []
        """What came at the end of the run, in this process and in its workers."""
        self._lines: list[tuple[str, bool]] = []
        """What to say below the summary, and whether it is an error."""
        self._deselected = 0
        self._attempts: dict[tuple[str, str], list[TestRecord]] = {}
        """By worker and test."""
        self._failures: list[DeviceFailure] = []
        self._lost: dict[tuple[str, str], DeviceFailure] = {}
        self.report = RunReport()
        """What this process counted, and later its workers too."""
        self.gaps: dict[str, str] = {}
        """What could not be measured, with the reason."""
        self._notes: dict[str, None] = {}

    def watch(self, gauge: Gauge, nvml: Nvml) -> None:
        """Tell what this process's gauge and its driver can and cannot measure."""
        self._gauge, self._nvml = gauge, nvml
        self.gaps = gauge.unavailable

    def add_note(self, text: str) -> None:
        """Have a line in the summary, once however many processes of the run have it."""
        self._notes[text] = None

    def add_last(self, record: TestRecord) -> None:
        """Take in what came after the last test."""
        self.last.append(record)
        self._send()

    def add_line(self, text: str, *, is_error: bool = False) -> None:
        """Say something below the summary."""
        self._lines.append((text, is_error))
        if is_error and self._config.pluginmanager.get_plugin("terminalreporter") is None:
            print(f"gpuclean: {text}", file=sys.stderr)

    def tell_wait(self, what: str) -> None:
        """Say what a long wait is for."""
        self.tell_line(f"waiting for {what}")

    def tell_line(self, text: str) -> None:
        """Print a line at once, in the middle of the run."""
        say(self._config, text)

    def pytest_report_header(self) -> list[str]:
        """Say what this run does."""
        with self._guard:
            return self._header()
        return []

    def _header(self) -> list[str]:
        notes = [f"gpuclean: {note}" for note in self.notes]
        if not self._settings.is_on:
            return notes
        in_use: list[str] = []
        if self._gauge is not None and not is_controller(self._config):
            readings = self._gauge.read().readings  # initialises nothing; also tells early what cannot be read
            in_use = sorted({f"{r.device} ({r.source})" for r in readings if r.device != "cpu"})
        parts = _header_parts(self._settings)
        parts += ["in use now: " + ", ".join(in_use)] if in_use else []
        return [header_line(parts, self.gaps.items()), *notes]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the records off a report."""
        own = getattr(report, "__dict__", ())
        if _ATTRIBUTE in own or _FAILURES in own:
            with self._guard:
                self._take_in(report)

    def _take_in(self, report: pytest.TestReport) -> None:
        failures = getattr(report, _FAILURES, None)
        if failures:
            self._note_failures(report, failures)
        wires = getattr(report, _ATTRIBUTE, None)
        if not wires or is_worker(self._config):
            return
        told = [record for record in records_of(report) if record.is_told]
        self._attempts[worker_of(report), report.nodeid] = told
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None and verbosity(self._config) > 0:
            for line in stage_lines(TestRecord.from_wire(wires[-1])):
                terminal.ensure_newline()
                terminal.write_line(line)

    def _note_failures(self, report: pytest.TestReport, wires: Iterable[Wire]) -> None:
        failures = list(map(DeviceFailure.from_wire, wires))
        lost = [failure for failure in failures if failure.kind == "lost"]
        self._lost.update({(failure.test, failure.device): failure for failure in lost})
        others = [failure for failure in failures if failure.kind != "lost"]
        if str(report.outcome) != "rerun":  # rerunfailures: a test counts with its last attempt
            self._failures += others

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Count what a worker leaves out: its controller collects nothing."""
        self._deselected += len(items)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send a worker's totals to its controller; refuse what a worker had to refuse."""
        if self._usage_error:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        with self._guard:
            self._send()

    def _send(self) -> None:
        if is_worker(self._config):
            totals = {name: getattr(self.report, name) for name in ("tests", "seconds", "given_back_bytes", "cleanups")}
            last = [record.to_wire() for record in self.last]
            more = {"gaps": self.gaps, "notes": list(self._notes), "last": last, "steps": self.report.steps}
            sent = {**totals, **more}
            self._config.workeroutput |= {_ATTRIBUTE: sent, DESELECTED: self._deselected}  # type: ignore[attr-defined]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add the totals of a worker that has ended; one that crashed has sent none."""
        with self._guard:
            self._add_worker(node)

    def _add_worker(self, node: Any) -> None:
        output = getattr(node, "workeroutput", None) or {}
        self._usage_error = output.get("gpuclean_usage_error", self._usage_error)
        totals = dict(output.get(_ATTRIBUTE, {}))
        if totals:
            self.gaps = {**totals.pop("gaps"), **self.gaps}
            self._notes.update(dict.fromkeys(totals.pop("notes")))
            self.last += map(TestRecord.from_wire, totals.pop("last"))
            self.report.add_steps(totals.pop("steps"))
            self._processes += 1
            for name, value in totals.items():
                setattr(self.report, name, getattr(self.report, name) + value)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the summary, where there is something to say."""
        with self._guard:
            if not is_worker(self._config):
                self._print_summary(terminalreporter)

    def _print_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._usage_error:
            terminalreporter.write_line(f"ERROR: {self._usage_error}", red=True)
        lines: list[str] = []
        for part in (self._summary, self._cross_check):
            with self._guard:
                lines += part()
        if lines:
            terminalreporter.section("gpuclean")
            for line in lines:
                terminalreporter.write_line(line)
        for line, is_error in self._lines:
            terminalreporter.write_line(f"gpuclean: {line}", red=is_error)

    def _summary(self) -> Iterator[str]:
        """Give line by line, so that what one of them costs is not the others."""
        seconds = (time.perf_counter() - self._begin) * max(1, self._processes)
        self.report.failures = [*self._lost.values(), *self._failures]
        self.report.records = [record for attempts in self._attempts.values() for record in attempts] + self.last
        yield from summary_lines(self.report, seconds, self.gaps, self._notes)

    def _cross_check(self) -> list[str]:
        """Compare the frameworks' books with the driver's, for `-v`."""
        if self._gauge is None or self._nvml is None or verbosity(self._config) <= 0:
            return []
        return unaccounted_lines(self._nvml, self._gauge.read(with_heap=False))


def _header_parts(settings: Settings) -> list[str]:
    parts = []
    if settings.level is not None:
        after = {"test": "each test", "param": "each parametrized run"}.get(settings.every, f"each {settings.every}")
        parts.append(f"{settings.level} cleaning after {after}")
    if settings.leak_mode != "off":
        mode = "report" if settings.only_observes else settings.leak_mode or ""
        does = {"fail": "fail", "warn": "warn", "report": "are reported"}.get(mode)
        does = does or "fail (in host memory: warn)" if settings.watch == "auto" else does or "fail"
        parts.append(f"leaks over {format_size(settings.threshold_bytes)} {does}")
    if settings.processes is not None or settings.is_on:
        done = {"kill": "stopped", "fail": "stopped, and fail their test", "report": "reported", "off": "left"}
        parts.append(f"processes left behind are {done[settings.processes_mode]}")
    if settings.host_wide:
        names = ", ".join(map(str, settings.host_wide))
        needs = "" if settings.level == "comprehensive" else " (not now: that takes --gpu-clean=comprehensive)"
        parts.append(f"beyond the run's own: {names}{needs}")
    if settings.oom_retry:
        times = "once more" if settings.oom_retry == 1 else f"up to {settings.oom_retry} times more"
        parts.append(f"tests that run out of memory run {times}")
    if settings.on_lost in ("stop", "replace"):
        done = {"stop": "ends the run", "replace": "is left to a new worker"}
        parts.append(f"a lost device {done[settings.on_lost]}")
    if settings.peak_limit_bytes is not None:
        parts.append(f"peaks over {format_size(settings.peak_limit_bytes)} fail")
    watched = {
        "auto": "devices, or host memory where the run has no accelerator",
        "device": "devices",
        "host": "host memory",
        "all": "devices and host memory",
    }
    parts.append(f"watching {watched[settings.watch]}")
    return parts
