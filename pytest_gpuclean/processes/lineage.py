"""Lines of parents: up from a process, and down from the run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.procfs import Procfs, Stat

_LONGEST_LINE = 512
_TRIES = 3


class Link(NamedTuple):
    """One process of a line."""

    pid: int
    start_ticks: int
    parent_pid: int

    @property
    def key(self) -> ProcessKey:
        """Which process it is."""
        return ProcessKey(self.pid, self.start_ticks)


@dataclass(frozen=True, slots=True)
class Line:
    """The parents of a process, the nearest first."""

    above: tuple[Link, ...]
    """Without the process itself and without the top."""
    reaches_top: bool
    """Whether the top is its ancestor; else the line goes up to pid 1 or out of sight."""


def line_above(procfs: Procfs, stat: Stat, top_pid: int) -> Line | None:
    """Read the parents of a process; None where they change while they are read.

    Read twice: where a process names the parent Q both times, the one that was read as Q in between was its parent.
    An orphan is only ever given to an ancestor, never to a process that took Q's number later.

    Args:
        procfs: where to read.
        stat: the process.
        top_pid: where the line may stop, the caller's own.
    """
    for _ in range(_TRIES):
        line = _climb(procfs, stat.pid, top_pid)
        if line and line[0].start_ticks == stat.start_ticks and line == _climb(procfs, stat.pid, top_pid):
            return Line(tuple(line[1:]), line[-1].parent_pid == top_pid)
    return None


def _climb(procfs: Procfs, pid: int, top_pid: int) -> list[Link]:
    """Give a process and each one above it, below the top; nothing where one of them is gone."""
    line: list[Link] = []
    while pid > 1 and pid != top_pid and len(line) < _LONGEST_LINE:
        stat = procfs.stat(pid)
        if stat is None:
            return []
        line.append(Link(stat.pid, stat.start_ticks, stat.parent_pid))
        pid = stat.parent_pid
    return line


def ancestors_of(procfs: Procfs, pid: int) -> list[ProcessKey]:
    """List the processes above a process, the nearest first.

    Args:
        procfs: where to read.
        pid: the process, which is not in the list.
    """
    found: list[ProcessKey] = []
    stat = procfs.stat(pid)
    while stat is not None and stat.parent_pid > 0 and len(found) < _LONGEST_LINE:
        stat = procfs.stat(stat.parent_pid)
        if stat is not None:
            found.append(ProcessKey(stat.pid, stat.start_ticks))
    return found


def descendants_of(procfs: Procfs, pid: int, passed_over: frozenset[ProcessKey] = frozenset()) -> Iterator[Stat]:
    """Walk down from a process, parents before their children. What is passed over is not entered.

    Args:
        procfs: where to read.
        pid: the process, which is not given itself.
        passed_over: left out, with what is below them.
    """
    children = procfs.children(pid)
    if children is None:
        yield from _below_by_parents(procfs, pid, passed_over)
        return
    seen = {pid}
    ahead = children[::-1]
    while ahead:
        child = ahead.pop()
        if child in seen:
            continue
        seen.add(child)
        stat = procfs.stat(child)
        if stat is None or ProcessKey(child, stat.start_ticks) in passed_over:
            continue
        yield stat
        ahead += reversed(procfs.children(child, stat.threads) or ())


def _below_by_parents(procfs: Procfs, pid: int, passed_over: frozenset[ProcessKey]) -> Iterator[Stat]:
    """The same from every process's parent, for kernels without CONFIG_PROC_CHILDREN."""
    below: dict[int, list[Stat]] = {}
    for other in procfs.pids():
        stat = procfs.stat(other)
        if stat is not None:
            below.setdefault(stat.parent_pid, []).append(stat)
    ahead = below.pop(pid, [])[::-1]
    while ahead:
        stat = ahead.pop()
        if ProcessKey(stat.pid, stat.start_ticks) not in passed_over:
            yield stat
            ahead += reversed(below.pop(stat.pid, []))
