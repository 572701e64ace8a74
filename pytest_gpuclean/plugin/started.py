"""The processes of a run, as pytest runs it: which process of the run looks after what."""

from __future__ import annotations

from typing import cast

import pytest

from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.plugin.telling import is_controller
from pytest_gpuclean.processes.families.interface import Family
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
    mode = settings.processes or "kill"
    if mode == "off" or settings.silenced or is_controller(config):
        return None
    return ProcessWatch(
        Run(subreaper=settings.is_subreaper),
        mode=cast("Mode", mode),
        settle_seconds=settings.settle_seconds,
        families=families,
        started_in=STARTED_IN,
        only_in_windows=not settings.is_on,
    )
