"""The processes of a run, as pytest runs it: which process of the run looks after what, from its start to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest

from pytest_gpuclean.cards import CardWatch
from pytest_gpuclean.memory.interface import first_line
from pytest_gpuclean.memory.nvml import Nvml
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.model.records import TestRecord
from pytest_gpuclean.plugin import internals
from pytest_gpuclean.plugin.guard import guard_of
from pytest_gpuclean.plugin.host_memory import HostMemory
from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.plugin.telling import Telling, is_controller, is_worker
from pytest_gpuclean.processes.families.interface import Family
from pytest_gpuclean.processes.host_wide import carry_out, plan
from pytest_gpuclean.processes.ledger import Ledger, begin_run
from pytest_gpuclean.processes.left_runs import forget_killed_inside, sweep
from pytest_gpuclean.processes.orphans import OrphanWatch
from pytest_gpuclean.processes.watch import Mode, ProcessWatch

STARTED_IN = "PYTEST_CURRENT_TEST"
"""Where pytest tells what it is at: `test_x.py::test_a (setup)`. What is started then inherits it."""
_PLUGIN_NAME = "gpuclean-processes"


def look_after_processes(
    config: pytest.Config, settings: Settings, families: tuple[Family, ...], telling: Telling, nvml: Nvml
) -> Started | None:
    """Begin to look after what this run starts, once; None where nobody wants it."""
    mode = settings.processes_mode
    if mode == "off" or settings.silenced:
        return None
    known: Started | None = config.pluginmanager.get_plugin(_PLUGIN_NAME)
    if known is not None:  # something else has failed after this, and all is tried again
        return known
    started = Started(config, settings, cast("Mode", mode), families, telling, nvml)
    config.pluginmanager.register(started, _PLUGIN_NAME)
    return started


class Started:
    """What a process of the run has started: the tests here, or the workers of pytest-xdist."""

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        mode: Mode,
        families: tuple[Family, ...],
        telling: Telling,
        nvml: Nvml,
    ) -> None:
        self._settings = settings
        self._guard = guard_of(config, "what was started is not looked after as it should")
        self._mode = mode
        self._families = families
        self._telling = telling
        self.host_memory = HostMemory(telling.tell_line, telling.add_last)
        self._reaches_out = not is_worker(config)
        """Whether this process looks beyond the run: one alone does."""
        self.run, ledger = begin_run(subreaper=settings.is_subreaper)
        self._ledger = ledger if isinstance(ledger, Ledger) else None
        if not isinstance(ledger, Ledger):
            telling.gaps["what a killed run leaves"] = ledger.reason
        if self.run.tier.limits:
            telling.gaps["processes"] = "; ".join(self.run.tier.limits)
        self.cards = CardWatch(
            nvml,
            self.run.procfs,
            settle_seconds=settings.settle_seconds,
            on_wait=telling.tell_wait,
            on_gap=lambda reason: telling.gaps.setdefault("GPU memory of processes that were left", reason),
        )
        self.watch = None if is_controller(config) else self._watch_tests()
        self._orphans = self._watch_workers() if is_controller(config) else None
        if settings.is_on and self._reaches_out:
            self._attempt("the sweep of killed runs", self._sweep)

    def begin_test(self, *, is_marked: bool) -> None:
        """Do for a test with a marker or a fixture of ours what would be done without a report that only looks."""
        if self.watch is not None and self._settings.processes is None:
            self.watch.mode = "kill" if is_marked else self._mode

    def stop_host_wide(self) -> None:
        """Stop what the user has named, where it may be."""
        if self._settings.host_wide and self._reaches_out and self._settings.level == "comprehensive":
            self._attempt("--gpu-host-wide", self._stop_named)

    # -- hooks --------------------------------------------------------------------------------------------------

    def pytest_sessionstart(self) -> None:
        """Stop what the user has named before the first test."""
        with self._guard:
            self.stop_host_wide()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        """Watch a worker that has come up."""
        with self._guard:
            pid = internals.worker_pid(node)
            if self._orphans is not None and pid is not None:
                self._orphans.add_worker(pid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Stop what nobody has ended: after Ctrl-C or `-x` no test's end has done it, and a dead worker cannot."""
        with self._guard:
            self._attempt("the end of the run", self._finish)
        with self._guard:
            self.stop_host_wide()

    def pytest_unconfigure(self) -> None:
        """Take back what was changed in this process for its children."""
        with self._guard:
            self.run.end()
        with self._guard:
            if self._ledger is not None:
                self._ledger.close()

    # -- steps --------------------------------------------------------------------------------------------------

    def _watch_tests(self) -> ProcessWatch:
        return ProcessWatch(
            self.run,
            mode=self._mode,
            settle_seconds=self._settings.settle_seconds,
            families=self._families,
            started_in=STARTED_IN,
            only_in_windows=not self._settings.is_on,
            ledger=self._ledger,
            gpu_bytes_of=self.cards.bytes_of,
        )

    def _watch_workers(self) -> OrphanWatch:
        return OrphanWatch(
            self.run,
            settle_seconds=self._settings.settle_seconds,
            families=self._families,
            started_in=STARTED_IN,
            stops=self._mode != "report",
        )

    def _finish(self) -> None:
        if self.watch is not None:
            left = self.watch.finish()
            for problem in self.watch.take_problems():
                self._telling.add_note(problem)
            self._tell("the whole run", left, self.cards.settle([process.pid for process in left if process.ended_by]))
        if self._orphans is not None:
            self._tell("a worker that died", self._orphans.finish())
        if self._reaches_out:
            forget_killed_inside(self.run.claim)

    def _sweep(self) -> None:
        swept = sweep(
            self.run.claim,
            settle_seconds=self._settings.settle_seconds,
            report_only=self._mode == "report",
            families=self._families,
        )
        for note in swept.notes:
            self._telling.gaps[f"a ledger of another run: {note}"] = "it is not believed"
        for left in swept.runs:
            self._tell("a killed run", left.processes)

    def _stop_named(self) -> None:
        planned = plan(self._settings.host_wide, self.run.claim, families=self._families)
        left = carry_out(
            planned,
            self.run.claim,
            tell=lambda line: self._telling.tell_line(f"--gpu-host-wide: {line}"),
            settle_seconds=self._settings.settle_seconds,
            families=self._families,
        )
        self._tell("--gpu-host-wide", left)
        # Only now: what has just been stopped may have used a GPU.
        self.host_memory.clean(self._settings.host_wide)

    def _tell(self, whose: str, left: Iterable[LeftProcess], problems: Iterable[str] = ()) -> None:
        left = tuple(left)
        if left:
            self._telling.add_last(TestRecord(test=whose, left=left, problems=tuple(problems)))

    def _attempt(self, what: str, does: Callable[[], None]) -> None:
        try:
            does()
        except Exception as error:  # trouble of our own never ends a run
            self._telling.gaps[what] = first_line(error)
