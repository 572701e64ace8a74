"""Waiting for the end of processes: woken by their pidfds, and by looking every so often where there are none."""

from __future__ import annotations

import select
import time
from collections.abc import Collection, Iterable

from pytest_gpuclean.processes.identity import NoPin, Pin, pin
from pytest_gpuclean.processes.procfs import Procfs

_LOOK_SECONDS = 0.01
"""How long until the next look at one that has no pidfd."""


def wait_for_one(pins: Collection[Pin], limit_seconds: float) -> None:
    """Sleep until one of them ends, or the time is over; a moment only where one has no pidfd to be woken by."""
    descriptors = [pinned.descriptor for pinned in pins if pinned.descriptor is not None]
    seconds = limit_seconds if len(descriptors) == len(pins) else min(limit_seconds, _LOOK_SECONDS)
    if not descriptors:
        time.sleep(seconds)  # Windows has no poll
        return
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    poll.poll(seconds * 1000)


def wait_for_all(pins: Iterable[Pin], limit_seconds: float) -> None:
    """Sleep until all of them have ended, or the time is over."""
    end = time.monotonic() + limit_seconds
    living = list(pins)
    while living and (left_seconds := end - time.monotonic()) > 0:
        wait_for_one(living, left_seconds)
        living = [pinned for pinned in living if not pinned.is_gone()]


def wait_for_ends(procfs: Procfs, pids: Iterable[int], limit_seconds: float) -> None:
    """Sleep until the processes that have these numbers now have ended, or the time is over.

    Args:
        procfs: where they are read.
        pids: their numbers; one that cannot be pinned is not waited for.
        limit_seconds: the upper bound for all of them together.
    """
    pins: list[Pin] = []
    try:
        for pid in pids:
            pinned = pin(procfs, pid)
            if pinned is not None and not isinstance(pinned, NoPin):
                pins.append(pinned)
        wait_for_all(pins, limit_seconds)
    finally:
        for pinned in pins:
            pinned.close()
