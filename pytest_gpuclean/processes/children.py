"""This process's children where there is no /proc to read (macOS, Windows): psutil knows them."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from pytest_gpuclean.processes.identity import TICKS_PER_SECOND, ProcessKey


class Child(NamedTuple):
    """A direct child."""

    key: ProcessKey
    name: str
    is_zombie: bool


def children_by_psutil() -> list[Child]:
    """List the direct children of this process; none on Linux.

    There psutil reads /proc as well, and this is asked where /proc is hidden, or shows another namespace's numbers.
    """
    if sys.platform == "linux":
        return []
    try:
        import psutil

        children = psutil.Process(os.getpid()).children()
    except Exception:  # psutil is missing or not allowed to look
        return []
    found = []
    for child in children:
        try:
            key = ProcessKey(child.pid, round(child.create_time() * TICKS_PER_SECOND))
            found.append(Child(key, child.name(), child.status() == psutil.STATUS_ZOMBIE))
        except psutil.Error:
            continue
    return found
