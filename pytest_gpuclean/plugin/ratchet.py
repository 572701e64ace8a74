"""At the end of a run: what of the known leaks is smaller or gone, and the new file where it was asked for."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import pytest

from pytest_gpuclean.leaks.baseline import Known, changes, known_from, not_collected, renewed
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.plugin.baseline import INPUT
from pytest_gpuclean.plugin.baseline_file import baseline_text
from pytest_gpuclean.plugin.extent import Extent
from pytest_gpuclean.plugin.guard import guard_of
from pytest_gpuclean.plugin.names import plain_name, worker_of
from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.plugin.telling import Telling, records_of
from pytest_gpuclean.plugin.trouble import is_own, trouble_of
from pytest_gpuclean.reports.files import write_file
from pytest_gpuclean.units import format_size

_MOST_TOLD = 10


class Ratchet:
    """Gathers the leaks of all processes in the run's controller."""

    def __init__(self, config: pytest.Config, settings: Settings, telling: Telling, extent: Extent) -> None:
        self._config = config
        self._settings = settings
        self._telling = telling
        self._extent = extent
        self._baseline = telling.baseline
        self._leaks: dict[str, dict[str, list[Leak]]] = {}
        """By test, and by the worker that ran it: under `--dist=each` there are several."""
        self._workers: set[str] = set()
        """That have run tests; none by name where this process has."""
        self._has_missed = False
        """Whether something was not judged, or not taken in, for trouble of our own."""
        self._guard = guard_of(config, "known leaks are not compared as they should")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Send the known leaks to a worker."""
        with self._guard:
            if self._baseline is not None:
                node.workerinput[INPUT] = self._baseline.wire()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the leaks of a test; its last report has those of all attempts."""
        has_missed, self._has_missed = self._has_missed, True
        with self._guard:
            self._workers.add(worker_of(report))
            records = records_of(report)
            leaks = [leak for record in records for leak in record.leaks]
            if leaks:
                test = plain_name(self._config, report.nodeid)
                self._leaks.setdefault(test, {})[worker_of(report)] = leaks
            self._has_missed = has_missed or any(is_own(text) for record in records for text in record.problems)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Compare and write once everybody else has ended the run, and before the terminal sums it up."""
        result = yield
        is_done = self._config.option.collectonly
        with self._guard:
            if not is_done:
                self._finish(session)
            is_done = True
        if not is_done and self._settings.updates_baseline:
            self._refuse(session, "trouble of gpuclean itself")
        return result

    @property
    def _is_split(self) -> bool:
        """Whether workers have shared the tests; under `--dist=each` every one has run them all."""
        return len(self._workers) > 1 and getattr(self._config.option, "dist", "no") != "each"

    # -- steps --------------------------------------------------------------------------------------------------

    def _finish(self, session: pytest.Session) -> None:
        partial = self._extent.why_unfinished(session) or self._why_narrowed()
        if not partial:
            self._tell_unused()
        if self._baseline is not None and self._settings.updates_baseline:
            self._update(session, partial)
        elif self._baseline is not None:
            self._compare(partial)

    def _found(self) -> list[Known]:
        found = [
            known_from(leak, test)
            for test, by_worker in self._leaks.items()
            for leak in max(by_worker.values(), key=_total)
            if not (leak.allowed or leak.kept_once)
        ]
        return [one for one in found if one is not None]

    def _all(self) -> Iterator[tuple[str, Leak]]:
        for test, by_worker in self._leaks.items():
            for leaks in by_worker.values():
                yield from ((test, leak) for leak in leaks)

    def _why_narrowed(self) -> str:
        if self._extent.deselected:
            return f"{self._extent.deselected} tests were deselected"
        single = [argument for argument in self._config.args if "::" in str(argument)]
        if single:
            return f"it ran {single[0]} alone"
        if getattr(self._config.option, "lf", False):
            return "it ran what had failed alone"
        known = self._baseline.known if self._baseline is not None else ()
        for file in not_collected(known, self._extent.collected):
            if os.path.exists(os.path.join(self._config.rootpath, file)):
                return f"nothing of {file} was collected"
        return ""

    def _tell_unused(self) -> None:
        for allowed in self._settings.allowances:
            if not any(allowed.covers(leak, test) for test, leak in self._all()):
                self._telling.add_line(
                    f"gpu_leak_allow: no leak is like {allowed.pattern!r} any more ({allowed.reason})"
                )

    def _compare(self, partial: str) -> None:
        if self._baseline is None:
            return
        found = changes(self._baseline.known, self._found(), self._extent.collected, is_split=self._is_split)
        lines = [
            f"{one}: {format_size(size)} instead of the {format_size(one.leaked_bytes)} that are known"
            for one, size in found.smaller
        ]
        if not partial:
            lines += [f"{one}: leaks no more ({format_size(one.leaked_bytes)} are known)" for one in found.cured]
            lines += [f"{one}: is not there any more" for one in found.gone]
        for line in _first(lines):
            self._telling.add_line(f"{self._baseline.name}: {line}")
        if lines:
            self._telling.add_line(f"{self._baseline.name}: tighten it with --gpu-leak-update-baseline")

    def _update(self, session: pytest.Session, partial: str) -> None:
        baseline = self._baseline
        if baseline is None:
            return
        if not partial and (self._has_missed or trouble_of(self._config).is_any):
            partial = "trouble of gpuclean itself, so that some leaks may not have been seen"
        if not partial and int(session.exitstatus) != pytest.ExitCode.OK:
            partial = "no test ran" if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED else "the run failed"
        if not partial:
            known = renewed(baseline.known, self._found(), is_split=self._is_split)
            text = baseline_text(known)
            try:
                if text != baseline_text(baseline.known) or not os.path.exists(baseline.path):
                    write_file(baseline.path, lambda out: out.writelines([text]))
            except OSError as error:
                partial = str(error.strerror or error)
            else:
                size = format_size(sum(one.leaked_bytes for one in known))
                self._telling.add_line(f"baseline: {len(known)} known leaks, {size}, in {baseline.path}")
                return
        self._refuse(session, partial)

    def _refuse(self, session: pytest.Session, reason: str) -> None:
        self._telling.add_line(f"NOT WRITTEN {self._settings.baseline}: {reason}", is_error=True)
        if int(session.exitstatus) == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR


def _total(leaks: Iterable[Leak]) -> int:
    return sum(leak.leaked_bytes for leak in leaks)


def _first(lines: list[str]) -> Iterable[str]:
    yield from lines[:_MOST_TOLD]
    if len(lines) > _MOST_TOLD:
        yield f"and {len(lines) - _MOST_TOLD} more"
