"""Looks into each phase of a test that raised: did memory run out, is a device lost?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_gpuclean.engine import Engine
from pytest_gpuclean.memory.failures import Failure, classify
from pytest_gpuclean.memory.health import HealthCheck
from pytest_gpuclean.model.records import DeviceFailure
from pytest_gpuclean.plugin.again import Again
from pytest_gpuclean.plugin.cards import elsewhere
from pytest_gpuclean.plugin.clock import clock_of
from pytest_gpuclean.plugin.guard import Guard
from pytest_gpuclean.plugin.lost import LostDevices
from pytest_gpuclean.plugin.replacing import go_on_as
from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.plugin.telling import Telling, attach_failure
from pytest_gpuclean.reports.failures import Elsewhere, victim_text

if TYPE_CHECKING:
    from pytest_gpuclean.memory.nvml import Nvml

_LEAST_PATIENCE_SECONDS = 1.0
"""To ask a device whether it answers is no wait for memory: it is done also where those are switched off."""
OtherProcesses = Callable[[str], Elsewhere]
"""Tells who else holds memory on a device."""


class Failing:
    """Tells on a failed test's report what its device has to do with it, and runs a victim again where asked to."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        telling: Telling,
        lost: LostDevices,
        again: Again,
        others: OtherProcesses,
    ) -> None:
        """Set it up.

        Args:
            settings: of the run.
            engine: knows what is held, and by whom.
            telling: has the records of the tests before.
            lost: keeps which devices are lost.
            again: runs a test again.
            others: tells about other processes.
        """
        self._settings = settings
        self._engine = engine
        self._telling = telling
        self._lost = lost
        self._again = again
        self._others = others

    def look(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, *, is_concerned: bool
    ) -> pytest.TestReport:
        """Look into a phase that raised, and give the report that stands for it in the end.

        Args:
            item: the test.
            call: the phase; where the test is run again, it becomes that of the last run.
            report: as it was made of it.
            is_concerned: whether the options or a marker concern this test.
        """
        if call.excinfo is None or report.outcome != "failed":
            return report
        failure = classify(call.excinfo.value)
        if (is_concerned or self._settings.on_lost is not None) and self._lost.look(item, report, failure):
            return report
        if failure is None or failure.kind != "out_of_memory" or call.when == "teardown":
            return report
        if self._again.is_running(item):  # it is told with the last of its runs
            return report
        fact = _fact(item, failure)
        text = self._victim_text(fact)
        if self._may_run_again(item):
            return self._run_again(item, call, fact, text)
        tell(report, fact, text)
        return report

    def note_report(self, item: pytest.Item) -> None:
        """Note, at a report of the test's call, what keeps it from running again."""
        self._again.note_report(item)

    def look_after(self, item: pytest.Item, report: pytest.TestReport, problems: Sequence[str]) -> None:
        """Look into the steps of a cleanup that failed: a passed test may have lost its device without a word."""
        self._lost.look_after(item, report, problems)

    def _victim_text(self, fact: DeviceFailure) -> str:
        leaks = [leak for record in self._telling.report.records for leak in record.leaks]
        others = self._others(fact.device)
        return victim_text(fact, self._engine.holdings(), leaks, others, may_retry=not self._settings.oom_retry)

    def _may_run_again(self, item: pytest.Item) -> bool:
        is_ending = item.session.shouldfail or item.session.shouldstop
        return bool(self._settings.oom_retry) and not is_ending and self._again.is_possible(item)

    def _run_again(
        self, item: pytest.Item, call: pytest.CallInfo[None], fact: DeviceFailure, text: str
    ) -> pytest.TestReport:
        for tries in range(1, self._settings.oom_retry + 1):
            again = self._again.run(item, call)
            report = again.report
            failure = classify(call.excinfo.value) if call.excinfo is not None and report.outcome == "failed" else None
            fact = dataclasses.replace(fact, retries=tries, outcome=report.outcome)
            if failure is None or failure.kind != "out_of_memory" or self._lost.is_any:
                break
        notes = [f"  {note}" for note in (fact.retried, *again.notes)]
        tell(report, fact, "\n".join([text, *notes]))
        return report


def look_into_failures(
    config: pytest.Config,
    settings: Settings,
    engine: Engine,
    telling: Telling,
    error_frames: Callable[[], Iterable[int]],
    nvml: Nvml,
    guard: Guard,
) -> Failing:
    """Put together what looks into the failures of this process's tests.

    Args:
        config: of the run.
        settings: of the run.
        engine: of this process.
        telling: of this process.
        error_frames: gives the frames (by `id`) of errors that pytest will raise again.
        nvml: asked about other processes where memory ran out.
        guard: takes in the trouble of what is done between two runs of a test.
    """
    ask = HealthCheck(max(_LEAST_PATIENCE_SECONDS, settings.settle_seconds)).ask
    only_reports = settings.on_lost in (None, "report")
    lost = LostDevices(ask, engine, go_on_as(config, settings, telling), only_reports=only_reports)
    again = Again(partial(engine.clean, "comprehensive"), error_frames, clock_of(config), guard)
    return Failing(settings, engine, telling, lost, again, partial(elsewhere, nvml))


def tell(report: pytest.TestReport, fact: DeviceFailure, text: str) -> None:
    """Write onto a report what happened; its outcome stays."""
    report.sections.append(("gpuclean", text))
    attach_failure(report, fact)


def _fact(item: pytest.Item, failure: Failure) -> DeviceFailure:
    return DeviceFailure(
        test=item.nodeid,
        kind="out_of_memory",
        device=failure.device,
        error=failure.error,
        asked_bytes=failure.asked_bytes,
    )
