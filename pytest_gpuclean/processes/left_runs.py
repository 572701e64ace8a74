"""What killed runs left is stopped by the next one: their ledgers are there, and nobody holds them locked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.command import read_command, spared
from pytest_gpuclean.processes.dead_run import DeadRun
from pytest_gpuclean.processes.discovery import OwnedProcess
from pytest_gpuclean.processes.families.interface import Family, recognize
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.other_ledgers import other_ledgers
from pytest_gpuclean.processes.ownership import Claim
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.run_folder import folders_of
from pytest_gpuclean.processes.run_record import RunRecord
from pytest_gpuclean.processes.stop import stop
from pytest_gpuclean.processes.surroundings import Surroundings, look_around
from pytest_gpuclean.processes.trackers import without_ended_trackers

_SHORTEST_STOP_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftRun:
    """A run that was killed, and what became of what it left."""

    name: str
    """`pytest tests (pid 123)`."""
    processes: tuple[LeftProcess, ...] = ()
    """`started_by` names the run, and the test where it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What a look at the ledgers of other runs brought."""

    runs: tuple[LeftRun, ...] = ()
    """The killed ones that had left something."""
    notes: tuple[str, ...] = ()
    """What could not be looked at or could not be believed, a line each."""


def sweep(
    own: Claim | None = None,
    *,
    settle_seconds: float,
    report_only: bool = False,
    families: tuple[Family, ...] = (),
    procfs: Procfs | None = None,
    folders: Iterable[str] | None = None,
) -> Sweep:
    """Stop what killed runs of this user left.

    Args:
        own: of this process's own run, where it has begun.
        settle_seconds: the upper bound for all of it together; each run that left something gets a second at least.
        report_only: whether to stop nothing, and leave the ledgers as they are.
        families: families of others, asked before our own.
        procfs: where processes are read.
        folders: where ledgers are looked for; by default the user's own.
    """
    procfs = procfs or Procfs()
    if not procfs.shows(os.getpid()):
        return Sweep()
    end = time.monotonic() + settle_seconds
    runs = []
    with other_ledgers(procfs, folders_of() if folders is None else folders, clear=not report_only) as found:
        around = look_around(procfs, own, found.living) if found.dead else None
        for ledger in found.dead:
            if around is None or is_inside(ledger.record, around):
                continue  # that run is alive, and looks after it
            owner = DeadRun(ledger.record, around, procfs, families)
            if report_only or found.is_one_unknown:
                left = _tell(owner)
            else:
                left = _stop(owner, max(_SHORTEST_STOP_SECONDS, end - time.monotonic()))
                if not any(_is_to_be_tried_again(owner, process) for process in left):
                    ledger.remove()
            if left:
                runs.append(LeftRun(name=ledger.record.name, processes=tuple(left)))
        return Sweep(runs=tuple(runs), notes=tuple(found.notes))


def forget_killed_inside(own: Claim, *, procfs: Procfs | None = None, folders: Iterable[str] | None = None) -> None:
    """Remove the ledgers of runs that were killed inside of this one, and that have left nothing which still runs.

    This run has looked after what its workers left. Where something of it goes on, the ledger stays for the next run.

    Args:
        own: of this process's own run.
        procfs: where processes are read.
        folders: where ledgers are looked for; by default the user's own.
    """
    procfs = procfs or Procfs()
    if not procfs.shows(os.getpid()):
        return
    with other_ledgers(procfs, folders_of() if folders is None else folders, clear=False) as found:
        inside = [ledger for ledger in found.dead if ledger.record.claim.cookie.startswith(own.cookie + "/")]
        around = look_around(procfs, own, found.living) if inside else None
        for ledger in inside:
            if around is not None and not _goes_on(ledger.record, DeadRun(ledger.record, around, procfs)):
                ledger.remove()


def _goes_on(record: RunRecord, owner: DeadRun) -> bool:
    """Tell whether something still runs that a dead run left, below this process or elsewhere."""
    recorded = any(_is_there(owner, key) for key in record.claim.recorded)
    return recorded or any(not process.is_zombie for process in owner.survey())


def is_inside(record: RunRecord, around: Surroundings) -> bool:
    """Tell whether a dead run was inside of one that is alive, which looks after what it left.

    Args:
        record: the dead run.
        around: knows those that are alive.
    """
    return any(record.claim.cookie.startswith(living.claim.cookie + "/") for living in around.living)


def _stop(owner: DeadRun, settle_seconds: float) -> list[LeftProcess]:
    found = owner.survey()
    had_ended = {process.key.pid for process in found if process.is_zombie}
    stopped = stop(
        found,
        owner,
        settle_seconds=settle_seconds,
        may_live=lambda key: False,  # noqa: ARG005
        started_by=owner.record.started_by,
        families=owner.others,
        run_ends=True,
    )
    # What was on its way out when its run died is nobody's news.
    gone = {left.pid for left in stopped if left.ended_by == "itself" and (left.is_spared or left.pid in had_ended)}
    told = [left for left in stopped if left.pid not in gone]
    return [*without_ended_trackers(owner.procfs, told), *_doubted(owner)]


def _tell(owner: DeadRun) -> list[LeftProcess]:
    found = [process for process in owner.survey() if not process.is_zombie]
    return [*(_describe(owner, process) for process in found), *_doubted(owner)]


def _doubted(owner: DeadRun) -> list[LeftProcess]:
    return [
        _describe(owner, process, f"left alone: {owner.doubts[process.key]}")
        for process in owner.doubted.values()
        if _is_there(owner, process.key)
    ]


def _describe(owner: DeadRun, process: OwnedProcess, reason: str = "") -> LeftProcess:
    command = read_command(owner.procfs, process.pid, 0)
    family = recognize(owner.families, command)
    reason = reason or (family.left_alone if family else "") or "nothing is stopped this time"
    started_by = owner.record.started_by(process.key)
    return spared(process.pid, command, family, reason=reason, started_by=started_by)


def _is_there(owner: DeadRun, key: ProcessKey) -> bool:
    stat = owner.procfs.stat(key.pid)
    return stat is not None and stat.start_ticks == key.start_ticks and stat.state not in "ZX"


def _is_to_be_tried_again(owner: DeadRun, left: LeftProcess) -> bool:
    """Tell whether a process should have ended and has not; what was left alone on purpose is told once."""
    on_purpose = {family.left_alone for family in owner.families if family.left_alone}
    if not left.is_alive or left.pid in {key.pid for key in owner.doubts}:
        return False
    return not any(left.reason.endswith(reason) for reason in on_purpose)
