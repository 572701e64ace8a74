"""After the end: what a family leaves behind is cleared away, and ports that are still held are named."""

from __future__ import annotations

import time
from collections.abc import Iterable

from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.processes.command import label, read_command
from pytest_gpuclean.processes.families.interface import Stopped
from pytest_gpuclean.processes.identity import TICKS_PER_SECOND, ticks_now
from pytest_gpuclean.processes.ports import holders_of, is_free
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.target import Target

_MOST_HOLDERS_NAMED = 3


def clear_up(procfs: Procfs, targets: Iterable[Target]) -> None:
    """Let each family clear away what its processes left, and say of each port whether it is free.

    Args:
        procfs: where processes are read.
        targets: those that have ended get a line about it; the others are passed over.
    """
    for target in targets:
        if target.gone_at is not None:
            notes = [_after(target), *(_still_held(procfs, port) for port in target.ports if target.shares_ports)]
            target.reason = "; ".join(filter(None, [target.reason, *notes]))


def _after(target: Target) -> str:
    if target.family is None:
        return ""
    now = time.time()
    try:
        stopped = Stopped(
            pid=target.process.pid,
            command=target.command,
            ports=target.ports,
            started_at=now - (ticks_now() - target.process.key.start_ticks) / TICKS_PER_SECOND,
            ended_at=now,
        )
        return target.family.after(stopped)
    except Exception as error:  # a family of somebody else may raise anything
        return f"clearing up after it failed: {type(error).__name__}: {error}"


def _still_held(procfs: Procfs, port: int) -> str:
    if is_free(procfs, port):
        return ""
    holders = holders_of(procfs, port)
    if isinstance(holders, Unavailable):
        return f"port {port} is still held; by whom cannot be told: {holders.reason}"
    if not holders:
        return f"port {port} cannot be bound yet: a connection that lingers, or a process that cannot be seen, uses it"
    names = [f"{label(read_command(procfs, pid, 0))} (pid {pid})" for pid in holders[:_MOST_HOLDERS_NAMED]]
    if len(holders) > _MOST_HOLDERS_NAMED:
        names.append(f"{len(holders) - _MOST_HOLDERS_NAMED} more")
    return f"port {port} is still held by {', '.join(names)}"
