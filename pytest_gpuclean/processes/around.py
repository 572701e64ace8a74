"""What runs around the processes that are being stopped, and who says whose it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from pytest_gpuclean.processes.discovery import OwnedProcess
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.ownership import Proof
from pytest_gpuclean.processes.procfs import Procfs


class Owner(Protocol):
    """Knows which processes may be stopped: the `Discovery` of a run, or what stands in for it after its death."""

    procfs: Procfs

    def survey(self, beyond: Iterable[int] = ()) -> tuple[OwnedProcess, ...]:
        """Look for everything that it owns now, parents first.

        Args:
            beyond: numbers of processes that it owns and that are perhaps not below it; it looks below them too.
        """

    def prove(self, pid: int) -> Proof | None:
        """Look for a proof that it owns the process that has this number now; None where there is any doubt."""

    def is_adopted(self, key: ProcessKey) -> bool:
        """Tell whether this process has become its parent by adoption, so that nobody waits for its exit status."""


class Around:
    """What one survey found, by the lines of parents in it."""

    def __init__(self, found: Iterable[OwnedProcess] = ()) -> None:
        self._by_pid = {process.pid: process for process in found}

    def __iter__(self) -> Iterator[OwnedProcess]:
        return iter(self._by_pid.values())

    def line_of(self, process: OwnedProcess) -> Iterator[OwnedProcess]:
        """Give a process, as the survey saw it, and what is above it."""
        seen = set()
        above: OwnedProcess | None = self._by_pid.get(process.pid, process)
        while above is not None and above.pid not in seen:
            yield above
            seen.add(above.pid)
            above = self._by_pid.get(above.parent_pid)

    def depth_of(self, process: OwnedProcess) -> int:
        """Count a process and what is above it: sorted by that, parents come before their children."""
        return sum(1 for _ in self.line_of(process))


class Link(NamedTuple):
    """One process of a chain that hops from number to number."""

    process: OwnedProcess
    argv: tuple[str, ...]


def is_next_link(orphan: Link, earlier: Iterable[Link], run_session: int) -> bool:
    """Tell whether an orphan evidently comes of a process that is being stopped.

    It may as well be a child that a thread of the run has just started, or that something that may live has left:
    so it has to have started later, with the same session, which is not the run's, or with the same command line.

    Args:
        orphan: a child of the run by now.
        earlier: what is being stopped, and what has gone before it could be.
        run_session: the session of the run.
    """
    process = orphan.process
    return any(
        process.key.start_ticks >= link.process.key.start_ticks
        and (
            process.session_id == link.process.session_id != run_session
            or (bool(orphan.argv) and orphan.argv == link.argv)
        )
        for link in earlier
    )
