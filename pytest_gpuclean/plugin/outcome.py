"""From what the engine found to what a test's outcome is: allowances, modes, and leaks of earlier attempts."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from pytest_gpuclean.errors import GpuCleanWarning
from pytest_gpuclean.leaks.allow import allowance_of
from pytest_gpuclean.leaks.baseline import known_from
from pytest_gpuclean.memory.interface import first_line
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.model.records import TestRecord
from pytest_gpuclean.plugin.baseline import Baseline
from pytest_gpuclean.plugin.names import plain_name
from pytest_gpuclean.plugin.plans import Allowance, plan_of
from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.plugin.telling import attach, has_records, verbosity
from pytest_gpuclean.reports.terminal import leak_text, left_texts

ATTEMPTS = pytest.StashKey[list[TestRecord]]()
"""The records of every attempt of a test with something to tell."""


class LeakFailure(pytest.fail.Exception):  # type: ignore[misc, name-defined]
    """A leak, as the error at the teardown of the test that leaked."""

    __module__ = "builtins"  # as pytest does: the short summary then shows the fact, not where this class lives

    def __str__(self) -> str:
        # pytest leaves the notes of such a failure out; Hypothesis writes there which example it was.
        return "\n".join([str(self.msg), *map(str, getattr(self, "__notes__", ()))])


def tell_on(report: pytest.TestReport, item: pytest.Item, told: Told) -> None:
    """Write onto a teardown report what came of its test; a failure of the teardown's own stays the first one."""
    failure = told.failure
    for text in told.warnings:
        try:
            item.warn(GpuCleanWarning(text))
        except GpuCleanWarning:  # `-W error`
            failure = "\n".join(filter(None, (failure, text)))
    if failure and report.outcome == "failed":
        report.sections.append(("gpuclean", failure))
    elif failure:
        if report.longrepr:  # the teardown skipped, or failed in a test that is marked xfail
            report.sections.append(("teardown", str(report.longrepr)))
        report.longrepr = _failure_text(item, failure)
        report.outcome = "failed"
        vars(report).pop("wasxfail", None)
    attach(report, told.records)


def tell_problems(report: pytest.TestReport, item: pytest.Item, problems: Iterable[str]) -> None:
    """Add to what is told on a teardown report that something of ours went wrong."""
    attempts = item.stash.setdefault(ATTEMPTS, [])
    if not has_records(report):
        attempts.append(TestRecord(test=item.nodeid))
    attempts[-1] = dataclasses.replace(attempts[-1], problems=(*attempts[-1].problems, *problems))
    attach(report, attempts)


def _failure_text(item: pytest.Item, text: str) -> Any:
    try:
        raise LeakFailure(text, pytrace=False)
    except LeakFailure as error:
        # Not the item's own: pytest does not ask that for an error of a teardown, and it may know its own errors alone.
        try:
            return pytest.Item.repr_failure(item, pytest.ExceptionInfo.from_exception(error))
        except Exception:  # the leak stands
            return text


@dataclass(frozen=True, slots=True)
class Told:
    """What is to be done about a record."""

    records: list[TestRecord]
    """Of every attempt of the test so far, this one last."""
    failure: str
    """The text that the test fails with; empty where it does not."""
    warnings: list[str]


class Verdicts:
    """Applies markers, modes and the hook of others to the leaks of a test."""

    def __init__(
        self,
        settings: Settings,
        baseline: Baseline | None = None,
        today: Callable[[], dt.date] = dt.date.today,
    ) -> None:
        self._settings = settings
        self._baseline = baseline
        self._today = today

    def fails(self, item: pytest.Item, leak: Leak) -> bool:
        """Whether a leak makes its test fail."""
        return not leak.excused and self._mode(item, leak) == "fail"

    def excuse(self, item: pytest.Item, record: TestRecord) -> TestRecord:
        """Mark the leaks of a record that are allowed, or whose allowance has run out."""
        problems = list(record.problems)
        leaks = []
        for leak in record.leaks:
            allowance = self._allowance(item, leak)
            holds = allowance is not None and allowance.holds_on(self._today())
            reason = allowance.reason if allowance is not None and holds else ""
            listed = allowance_of(self._settings.allowances, leak, plain_name(item.config, item.nodeid))
            reason = reason or (listed.reason if listed is not None else "")
            note = (
                ""
                if allowance is None or holds
                else f"its allowance ({allowance.reason!r}) ran out on {allowance.until}"
            )
            try:
                reason = reason or item.ihook.pytest_gpuclean_leak(item=item, leak=leak) or ""
            except Exception as error:
                problems.append(f"pytest_gpuclean_leak raised {first_line(error)}")
            leak = dataclasses.replace(leak, allowed=str(reason), note=note)
            leaks.append(self._compared(item, leak) if self._baseline is not None else leak)
        return dataclasses.replace(record, leaks=tuple(leaks), problems=tuple(problems))

    def take_in(self, record: TestRecord) -> TestRecord:
        """Mark what is left of the leaks as known, where the run makes a new baseline."""
        if self._baseline is None or not self._settings.updates_baseline:
            return record
        leaks = tuple(
            leak
            if leak.excused or leak.kind == "peak"
            else dataclasses.replace(leak, known=self._baseline.name, note="")
            for leak in record.leaks
        )
        return dataclasses.replace(record, leaks=leaks)

    def _compared(self, item: pytest.Item, leak: Leak) -> Leak:
        found = known_from(leak, plain_name(item.config, item.nodeid))
        if self._baseline is None or leak.excused or found is None:
            return leak
        news = self._baseline.met.meet(found)
        if not news:
            return dataclasses.replace(leak, known=self._baseline.name)
        return dataclasses.replace(leak, note="; ".join(filter(None, (leak.note, f"{self._baseline.name}: {news}"))))

    def tell(self, item: pytest.Item, record: TestRecord) -> Told:
        """Say what is to be done; a leak in any attempt is final."""
        attempts = item.stash.setdefault(ATTEMPTS, [])
        earlier = [
            dataclasses.replace(leak, note=f"in attempt {number}: what leaks into a cache does not grow again")
            for number, attempt in enumerate(attempts, 1)
            for leak in attempt.leaks
            if self.fails(item, leak)
        ]
        attempts.append(record)
        failing = [*earlier, *(leak for leak in record.leaks if self.fails(item, leak))]
        text_of = partial(leak_text, whole=verbosity(item.config) > 1)
        failing_text = [*map(text_of, failing), *left_texts(item.nodeid, self._failing_processes(attempts))]
        warned = [leak for leak in record.leaks if not leak.excused and self._mode(item, leak) == "warn"]
        return Told(
            records=list(attempts),
            failure="\n".join(failing_text),
            warnings=[text_of(leak) for leak in warned],
        )

    def _failing_processes(self, attempts: list[TestRecord]) -> list[LeftProcess]:
        """List the processes, of any attempt, that a test fails for: all that it left, or what cannot be stopped."""
        left = [process for attempt in attempts for process in attempt.left if not process.is_spared]
        return left if self._settings.processes == "fail" else [process for process in left if process.is_unkillable]

    def _mode(self, item: pytest.Item, leak: Leak) -> str:
        if leak.kind == "peak":
            return "fail"
        if self._settings.only_observes and plan_of(item, self._settings).only_observed:
            return "report"
        return self._settings.mode_of(leak.device)

    def _allowance(self, item: pytest.Item, leak: Leak) -> Allowance | None:
        if leak.kind == "test":
            return plan_of(item, self._settings).allowance
        if leak.kind in ("fixture", "module"):
            kind = pytest.Class if leak.scope == "class" else pytest.Module
            node = item.getparent(kind)
            return plan_of(node, self._settings).allowance if node is not None else None
        return None
