"""What is never touched by anything that goes beyond the run's own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.lineage import ancestors_of
from pytest_gpuclean.processes.ownership import Claim
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.run_record import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is never touched by a sweep, and by nothing else that goes beyond the run's own."""

    pid: int
    """This process; what is below it is its own run's business."""
    ancestors: tuple[ProcessKey, ...]
    """Above this process, the nearest first."""
    own: Claim | None = None
    """What this process's own run is known by."""
    living: tuple[RunRecord, ...] = ()
    """Other runs that are alive."""

    def living_run_of(self, procfs: Procfs, line: Iterable[ProcessKey]) -> RunRecord | None:
        """Find the run, alive, that a process belongs to.

        Args:
            procfs: where to look.
            line: the process, and those above it.
        """
        for key in line:
            stat = procfs.stat(key.pid) if self.living else None
            for record in self.living:
                if key == record.key:
                    return record
                if stat is not None and stat.start_ticks == key.start_ticks and record.claim.prove(procfs, stat):
                    return record
        return None


def look_around(
    procfs: Procfs, own: Claim | None, living: Iterable[RunRecord], *, spare_outer: bool = False
) -> Surroundings:
    """Find out what is never to be touched.

    Args:
        procfs: where to look.
        own: of this process's own run, where it has begun.
        living: the runs that are alive.
        spare_outer: whether the runs inside of which this process is count among them. A dead run may well have been
            inside of them too, and what it left is not theirs.
    """
    pid = os.getpid()
    others = tuple(
        record
        for record in living
        if spare_outer or own is None or not f"{own.cookie}/".startswith(f"{record.claim.cookie}/")
    )
    return Surroundings(pid=pid, ancestors=tuple(ancestors_of(procfs, pid)), own=own, living=others)
