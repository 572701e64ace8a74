"""What runs, for people to look at: runs with the processes that are theirs, and servers that are known by their kind.

Nothing here sends a signal or removes a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

from pytest_gpuclean.model import Unavailable, Wire
from pytest_gpuclean.processes.command import command_line, label, read_command
from pytest_gpuclean.processes.dead_run import DeadRun
from pytest_gpuclean.processes.families import FAMILIES
from pytest_gpuclean.processes.families.interface import recognize
from pytest_gpuclean.processes.families.robots import ROBOTS
from pytest_gpuclean.processes.families.servers import SERVERS
from pytest_gpuclean.processes.families.tensorboard import TENSORBOARD
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.left_runs import is_inside
from pytest_gpuclean.processes.lineage import descendants_of
from pytest_gpuclean.processes.other_ledgers import other_ledgers
from pytest_gpuclean.processes.ownership import Proof
from pytest_gpuclean.processes.ports import ports_of
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.run_folder import folders_of
from pytest_gpuclean.processes.run_record import RunRecord
from pytest_gpuclean.processes.surroundings import look_around

_SHOWN = (TENSORBOARD, *ROBOTS, *SERVERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A process."""

    pid: int
    name: str
    """Its family, or a short label."""
    command: str
    """Its command line, shortened, without secrets and control characters."""
    user: str = ""
    ports: tuple[int, ...] = ()
    started_by: str = ""
    """The test, fixture or block that has started it, where that is known."""
    proof: str = ""
    """Why it is known to be the run's own."""
    doubt: str = ""
    """Why it is left alone all the same; empty where `gpuclean clean` would stop it once its run is dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRun:
    """A run, by its ledger."""

    name: str
    pid: int
    is_alive: bool
    started_at: float
    """Seconds since 1970."""
    processes: tuple[Listed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Every run of this user that has a ledger."""

    runs: tuple[ListedRun, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be looked at or could not be believed, a line each."""

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        return asdict(self)


def list_runs(procfs: Procfs | None = None, folders: Iterable[str] | None = None) -> Listing:
    """List the runs that are alive, and those that are dead and have left something.

    Args:
        procfs: where processes are read.
        folders: where ledgers are looked for; by default the user's own.
    """
    procfs = procfs or Procfs()
    if not procfs.shows(os.getpid()):
        return Listing(notes=(f"{procfs.root} does not show this process: no other one can be looked at",))
    runs = []
    with other_ledgers(procfs, folders_of() if folders is None else folders, clear=False) as found:
        taken: set[ProcessKey] = set()
        # The innermost first: what a run inside of another one has started bears the marks of both.
        for record in sorted(found.living, key=lambda record: -len(record.claim.cookie)):
            processes = tuple(_living(procfs, record, taken))
            runs.append(_run(record, processes, is_alive=True))
        around = look_around(procfs, None, found.living) if found.dead else None
        for ledger in found.dead:
            if around is not None and not is_inside(ledger.record, around):
                owner = DeadRun(ledger.record, around, procfs)
                processes = tuple(_left(procfs, owner))
                runs += [_run(ledger.record, processes, is_alive=False)] if processes else []
        return Listing(runs=tuple(sorted(runs, key=lambda run: run.started_at)), notes=tuple(found.notes))


def list_known(procfs: Procfs | None = None) -> tuple[Listed, ...]:
    """List the TensorBoards, ROS 2 processes and servers that are known by their kind, whosever they are.

    Args:
        procfs: where processes are read.
    """
    procfs = procfs or Procfs()
    if not procfs.shows(os.getpid()):
        return ()
    found = []
    for pid in sorted(procfs.pids()):
        if procfs.argv(pid):
            family = recognize(FAMILIES, read_command(procfs, pid, 0))
            if family is not None and family in _SHOWN:
                found.append(pid)
    return tuple(_listed(procfs, found))


def _run(record: RunRecord, processes: tuple[Listed, ...], *, is_alive: bool) -> ListedRun:
    return ListedRun(
        name=record.name, pid=record.key.pid, is_alive=is_alive, started_at=record.started_at, processes=processes
    )


def _living(procfs: Procfs, record: RunRecord, taken: set[ProcessKey]) -> Iterator[Listed]:
    below = {stat.pid for stat in descendants_of(procfs, record.key.pid)}
    proofs: dict[int, str] = {}
    for pid in sorted({*procfs.pids(), *below}):
        stat = procfs.stat(pid)
        if stat is None or pid in (os.getpid(), record.key.pid) or stat.state in "ZX":
            continue
        key = ProcessKey(pid, stat.start_ticks)
        if key in taken or stat.start_ticks < record.claim.start_ticks:
            continue
        proof = record.claim.prove(procfs, stat) or (Proof.DESCENDANT if pid in below else None)
        if proof is not None:
            taken.add(key)
            proofs[pid] = proof.value
    starters = {seen.key.pid: seen.started_by for seen in record.seen}
    kept = {key.pid for key in record.kept}
    for process in _listed(procfs, proofs):
        yield replace(
            process,
            proof=proofs[process.pid],
            started_by=starters.get(process.pid, ""),
            doubt="it was disowned" if process.pid in kept else "",
        )


def _left(procfs: Procfs, owner: DeadRun) -> Iterator[Listed]:
    certain = {process.pid: process for process in owner.survey() if not process.is_zombie}
    doubted = {process.pid: process for process in owner.doubted.values() if not process.is_zombie}
    for process in _listed(procfs, {**certain, **doubted}):
        found = certain.get(process.pid) or doubted[process.pid]
        family = recognize(owner.families, read_command(procfs, process.pid, 0))
        yield replace(
            process,
            proof=found.proof.value,
            started_by=next((seen.started_by for seen in owner.record.seen if seen.key == found.key), ""),
            doubt=owner.doubts.get(found.key, "") or (family.left_alone if family else ""),
        )


def _listed(procfs: Procfs, pids: Iterable[int]) -> Iterator[Listed]:
    pids = list(pids)
    ports = ports_of(procfs, pids)
    for pid in pids:
        command = read_command(procfs, pid, 0)
        if not command.name:  # it has ended meanwhile
            continue
        yield Listed(
            pid=pid,
            name=label(command, recognize(FAMILIES, command)),
            command=command_line(command),
            user=user_of(procfs, pid),
            ports=() if isinstance(ports, Unavailable) else ports.get(pid, ()),
        )


def user_of(procfs: Procfs, pid: int) -> str:
    """Name the user as whom a process runs; empty where that cannot be told.

    Args:
        procfs: where to read.
        pid: the process.
    """
    uids = procfs.uids(pid)
    if uids is None:
        return ""
    try:
        import pwd

        return pwd.getpwuid(uids.real).pw_name
    except (ImportError, KeyError):
        return f"uid {uids.real}"
