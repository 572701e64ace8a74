"""Resource trackers: left alone while they are needed, and gone a moment later. Nobody has to read about those."""

from __future__ import annotations

import time
from collections.abc import Iterable

from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.families.workers import RESOURCE_TRACKER
from pytest_gpuclean.processes.identity import NoPin, pin
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.waiting import wait_for_all

_MOMENT_SECONDS = 2.0
"""On a busy machine an interpreter takes its time to end."""


def without_ended_trackers(procfs: Procfs, told: Iterable[LeftProcess]) -> list[LeftProcess]:
    """Leave out the resource trackers that end now that the processes they served have ended.

    Args:
        procfs: where processes are read.
        told: what has been stopped or left alone.
    """
    end = time.monotonic() + _MOMENT_SECONDS
    return [left for left in told if not (_is_tracker(left) and _ends(procfs, left.pid, end))]


def _is_tracker(left: LeftProcess) -> bool:
    return left.is_alive and left.name == RESOURCE_TRACKER.name


def _ends(procfs: Procfs, pid: int, end: float) -> bool:
    pinned = pin(procfs, pid)
    if pinned is None or isinstance(pinned, NoPin):
        return pinned is None
    try:
        wait_for_all([pinned], end - time.monotonic())
        return pinned.is_gone()
    finally:
        pinned.close()
