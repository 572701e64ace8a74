"""The processes of a run, as pytest runs it: which process of the run looks after what."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pytest_gpuclean.model import TestRecord
from pytest_gpuclean.plugin import retention
from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.plugin.telling import Telling, is_controller
from pytest_gpuclean.processes.families.interface import Family
from pytest_gpuclean.processes.orphans import OrphanWatch
from pytest_gpuclean.processes.ownership import Run
from pytest_gpuclean.processes.watch import Mode, ProcessWatch

STARTED_IN = "PYTEST_CURRENT_TEST"
"""Where pytest tells what it is at: `test_x.py::test_a (setup)`. What is started then inherits it."""


def watch_processes(config: pytest.Config, settings: Settings, families: tuple[Family, ...]) -> ProcessWatch | None:
    """Begin to look after the processes that tests start; None where nobody wants it, or no test runs here.

    Args:
        config: of this process.
        settings: of the run.
        families: kinds of processes beside the known ones.
    """
    mode = _mode(settings)
    if mode is None or is_controller(config):
        return None
    return ProcessWatch(
        Run(subreaper=settings.is_subreaper),
        mode=mode,
        settle_seconds=settings.settle_seconds,
        families=families,
        started_in=STARTED_IN,
        only_in_windows=not settings.is_on,
    )


def watch_workers(
    config: pytest.Config, settings: Settings, families: tuple[Family, ...], telling: Telling
) -> Workers | None:
    """Begin to look after what workers leave that die; None where this process has none, or nobody wants it."""
    mode = _mode(settings)
    if mode is None or not is_controller(config):
        return None
    watch = OrphanWatch(
        Run(subreaper=settings.is_subreaper),
        settle_seconds=settings.settle_seconds,
        families=families,
        started_in=STARTED_IN,
        stops=mode != "report",
    )
    return Workers(watch, telling)


def _mode(settings: Settings) -> Mode | None:
    mode = settings.processes or "kill"
    return None if mode == "off" or settings.silenced else cast("Mode", mode)


class Workers:
    """What the controller of pytest-xdist looks after."""

    def __init__(self, watch: OrphanWatch, telling: Telling) -> None:
        self._watch = watch
        self._telling = telling

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        """Watch a worker that has come up."""
        pid = retention.worker_pid(node)
        if pid is not None:
            self._watch.add_worker(pid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Tell what dead workers have left, once the others have ended."""
        left = self._watch.finish()
        if left:
            self._telling.add_last(TestRecord(test="a worker that died", left=tuple(left)))

    def pytest_unconfigure(self) -> None:
        """Take back what was changed in this process for its children."""
        self._watch.run.end()
