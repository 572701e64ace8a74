"""The files of `--gpu-report`: gathered and written by the run's controller."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
import time
import uuid
from collections.abc import Generator, Mapping
from functools import partial
from typing import Any

import pytest

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.memory.interface import first_line
from pytest_gpuclean.model.records import TestRecord
from pytest_gpuclean.plugin.extent import Extent
from pytest_gpuclean.plugin.guard import guard_of
from pytest_gpuclean.plugin.names import worker_of
from pytest_gpuclean.plugin.recording import ATTRIBUTE, Figures
from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.plugin.telling import Telling, records_of
from pytest_gpuclean.reports.cautious import without_values
from pytest_gpuclean.reports.data import Aside, FixtureSpan, Outcome, Report, Run, StepTotal, TestEntry
from pytest_gpuclean.reports.files import check_target, write_file
from pytest_gpuclean.reports.series import Series
from pytest_gpuclean.reports.shard import shard_of
from pytest_gpuclean.reports.writers import writer_for
from pytest_gpuclean.units import format_size


class Reporting:
    """Takes the figures off the reports of tests, and writes the files at the end."""

    def __init__(self, config: pytest.Config, settings: Settings, telling: Telling, extent: Extent) -> None:
        """Set it up.

        Raises:
            pytest.UsageError: where a file cannot be written.
        """
        self._config = config
        self._settings = settings
        self._telling = telling
        self._extent = extent
        self._began = time.time(), time.perf_counter()
        self._series = Series()
        self._spans: list[FixtureSpan] = []
        self._outcomes: dict[tuple[str, str], Outcome] = {}
        """Of tests that are running, by worker and test."""
        self._latest: dict[str, tuple[str, int]] = {}
        """Of each worker: its last test, and how many attempts of it are in."""
        self._guard = guard_of(config, "the report files lack something")
        try:
            for path in settings.reports if not config.option.collectonly else ():
                check_target(path, "--gpu-report")
        except InputError as error:
            raise pytest.UsageError(str(error)) from None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a test in once its last report is there."""
        with self._guard:
            self._take_in(report)

    def _take_in(self, report: pytest.TestReport) -> None:
        run = worker, test = worker_of(report), report.nodeid
        self._outcomes[run] = outcome_after(self._outcomes.get(run), report)
        if report.when == "teardown":
            self._add(report, self._outcomes[run])
            self._outcomes.pop(run, None)
        elif report.when not in ("setup", "call"):  # xdist's, of a worker that has died
            del self._outcomes[run]
            self._series.append(TestEntry(test=test, outcome="crashed", worker=worker))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Write the files once everybody else has ended the run, and before the terminal sums it up."""
        result = yield
        with guard_of(self._config, f"NOT WRITTEN {', '.join(self._settings.reports)}"):
            if not self._config.option.collectonly:
                self._write_all(session)
        return result

    # -- steps --------------------------------------------------------------------------------------------------

    def _add(self, report: pytest.TestReport, outcome: Outcome) -> None:
        attempts: list[Figures | None] = [Figures.from_wire(wire) for wire in vars(report).pop(ATTRIBUTE, [])]
        records: list[TestRecord | None] = [*records_of(report)]
        worker = worker_of(report)
        count = max(1, len(attempts), len(records))
        # Nothing is sent of the first attempts of a test as long as they have nothing to tell.
        attempts = [*[None] * (count - len(attempts)), *attempts]
        records = [*[None] * (count - len(records)), *records]
        test, known = self._latest.get(worker, ("", 0))
        known = known if test == report.nodeid else 0  # a teardown that fails is reported though the test runs again
        self._latest[worker] = report.nodeid, count
        for number in range(known, count):
            figures, last = attempts[number], number == count - 1
            self._spans += [dataclasses.replace(span, worker=worker) for span in (figures.spans if figures else ())]
            entry = _entry(report, outcome if last else "rerun", worker, number + 1, figures, records[number])
            self._series.append(entry)

    def _write_all(self, session: pytest.Session) -> None:
        with self._guard:
            for run in list(self._outcomes):
                del self._outcomes[run]
                _, test = run
                self._series.append(TestEntry(test=test, outcome="unfinished"))
        made: Report | None = None
        for path in self._settings.reports:
            try:
                made = report = made or Report(runs=(self._run(session),))
                write_file(path, partial(writer_for(path, "--gpu-report").write, report))
            except OSError as error:
                self._telling.add_line(f"NOT WRITTEN {path}: {error.strerror or error}", is_error=True)
            except Exception as error:  # trouble of our own never takes a run's result
                self._telling.add_line(f"NOT WRITTEN {path}: {first_line(error)}", is_error=True)
            else:
                self._telling.add_line(f"report: {path}")

    def _run(self, session: pytest.Session) -> Run:
        totals = self._telling.report
        started_at, began = self._began
        return Run(
            id=uuid.uuid4().hex,
            started_at=started_at,
            seconds=time.perf_counter() - began,
            exit_status=int(session.exitstatus),
            partial=self._extent.why_unfinished(session),
            shard=shard_of(vars(self._config.option), os.environ),
            workers=self._series.workers(),
            python=platform.python_version(),
            pytest=pytest.__version__,
            plugin=_own_version(),
            system=f"{platform.system()} {platform.machine()}",
            options=_options(self._settings),
            cleanups=totals.cleanups,
            given_back_bytes=totals.given_back_bytes,
            cost_seconds=totals.seconds,
            steps=tuple(
                StepTotal(name=name, times=int(times), failed=int(failed), seconds=seconds, given_back_bytes=int(size))
                for name, (times, failed, seconds, size) in totals.steps.items()
            ),
            not_measured=dict(self._telling.gaps),
            asides=tuple(
                Aside(whose=record.test, left=tuple(map(without_values, record.left)))
                for record in self._telling.last
                if record.left
            ),
            fixtures=tuple(self._spans),
            tests=self._series,
        )


def outcome_after(before: Outcome | None, report: pytest.TestReport) -> Outcome:
    """Say what the outcome of a test is after one more of its reports.

    Args:
        before: what it was; None before the first.
        report: of the setup, the call or the teardown.
    """
    expected = hasattr(report, "wasxfail")
    if report.outcome == "failed" or before == "failed":  # a test may fail in a subtest, and go on
        return "failed" if report.when == "call" or before == "failed" else "error"
    if report.outcome == "skipped":
        return "xfailed" if expected else "skipped"
    if report.outcome != "passed":
        return "rerun" if str(report.outcome) == "rerun" else before or "passed"
    if report.when == "call":
        return "xpassed" if expected else "passed"
    return before if before is not None and report.when != "setup" else "passed"


def _entry(
    report: pytest.TestReport,
    outcome: Outcome,
    worker: str,
    attempt: int,
    figures: Figures | None,
    record: TestRecord | None,
) -> TestEntry:
    more: dict[str, Any] = {}
    if record is not None and record.is_told:
        file, line, _ = report.location
        more = {
            "file": str(file),
            "line": 0 if line is None else line + 1,
            "leaks": record.leaks,
            "left": tuple(map(without_values, record.left)),
            "problems": record.problems,
        }
    if figures is not None:
        more |= {
            "started_at": round(figures.started_at, 6),
            "seconds": round(figures.seconds, 6),
            "cost_seconds": round(figures.cost_seconds, 7),
            "given_back_bytes": figures.given_back_bytes,
            "memory": figures.uses,
        }
    return TestEntry(test=report.nodeid, outcome=outcome, worker=worker, attempt=attempt, **more)


def _options(settings: Settings) -> Mapping[str, str]:
    found = {
        "gpu_clean": settings.level or "off",
        "gpu_clean_every": settings.every,
        "gpu_leak": settings.leak_mode or "",
        "gpu_leak_threshold": format_size(settings.threshold_bytes),
        "gpu_leak_watch": settings.watch,
        "gpu_processes": settings.processes or "",
    }
    return {name: value for name, value in found.items() if value}


def _own_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pytest-gpuclean")
    except PackageNotFoundError:
        return f"(not installed, {sys.platform})"
