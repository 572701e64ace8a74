"""Finding the run's own processes. Nothing here sends a signal."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from pytest_gpuclean.processes.children import children_by_psutil
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.lineage import descendants_of
from pytest_gpuclean.processes.ownership import Claim, Proof, Run
from pytest_gpuclean.processes.procfs import Procfs, Stat

_KTHREADD = 2
_NOBODY = 0
_WALL = 0x40000000
"""Children that were made by clone(2) with another signal than SIGCHLD count too (Linux 4.7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedProcess:
    """A process that was the run's own when it was looked at."""

    key: ProcessKey
    parent_pid: int
    proof: Proof
    name: str = ""
    """As the kernel has it, at most 15 characters: a label."""
    session_id: int = 0
    is_zombie: bool = False
    """Whether its main thread has ended; most often the whole process has."""

    @property
    def pid(self) -> int:
        """Its number."""
        return self.key.pid

    @classmethod
    def from_stat(cls, stat: Stat, proof: Proof) -> OwnedProcess:
        """Take it as /proc shows it.

        Args:
            stat: of the process.
            proof: why it is the run's own.
        """
        return cls(
            key=ProcessKey(stat.pid, stat.start_ticks),
            parent_pid=stat.parent_pid,
            proof=proof,
            name=stat.name,
            session_id=stat.session_id,
            is_zombie=stat.state == "Z",
        )


def has_children() -> bool:
    """Tell whether this process has any child at all, zombies included, in 1 or 2 microseconds.

    Nothing is reaped. Where the system cannot say, there may be some.
    """
    try:
        os.waitid(os.P_ALL, 0, os.WNOWAIT | os.WNOHANG | os.WEXITED | _WALL)
    except ChildProcessError:
        return False
    except (AttributeError, OSError):  # macOS before Python 3.13, Windows; a kernel without __WALL
        return True
    return True


class Discovery:
    """Looks for the processes of one run: at its children, at everything below them, at all of the user's.

    Args:
        run: whose processes are looked for.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.procfs = run.procfs
        self._first_parents: dict[ProcessKey, int] = {}
        self._own_session = _session_here()

    def below(self) -> tuple[OwnedProcess, ...]:
        """Walk down from the run: 50 to 100 microseconds where there are a few, whatever else runs."""
        if not self.run.tier.proc:
            return self._children()
        stats = list(descendants_of(self.procfs, self.run.pid, self.run.baseline))
        found = tuple(self._owned(stats))
        sessions = {0, self._own_session, _session_here()}  # a run that has called setsid was in another one before
        self._first_parents = {
            process.key: self._first_parents.get(process.key, self._first_parent(process, sessions))
            for process in found
        }
        return found

    def everywhere(self) -> tuple[OwnedProcess, ...]:
        """Look at every process of the user's too: for the cookie, the ledger, and what was recorded before.

        8 ms at 1,000 processes. What is found is recorded, and what has ended is forgotten.
        """
        found = {process.key: process for process in self.below()}
        if self.run.tier.proc:
            for pid in self._marked_pids({key.pid for key in found}):
                process = self._prove(pid)
                if process is not None:
                    found.setdefault(process.key, process)
                    self._first_parents.setdefault(process.key, process.parent_pid)
            # What is below an orphan that was found by its cookie, and has none itself (`env -i`).
            for process in list(found.values()):
                if process.proof is not Proof.DESCENDANT:
                    found = {**self._below_orphan(process), **found}
        self.run.record(found)
        self.run.forget(self.run.claim.recorded - found.keys())
        return tuple(found.values())

    def survey(self, beyond: Iterable[int] = ()) -> tuple[OwnedProcess, ...]:
        """Look below the run, and below processes of its own that are not below it any more.

        Args:
            beyond: numbers of such processes. Without a subreaper every orphan is one, and all of the user's
                processes are looked at.
        """
        if not self.run.tier.subreaper:
            return self.everywhere()
        found = {process.key: process for process in self.below()}
        below = {key.pid for key in found}
        for pid in beyond:
            if pid not in below and (process := self._prove(pid)):
                found = {**found, process.key: process, **self._below_orphan(process)}
        return tuple(found.values())

    def prove(self, pid: int) -> Proof | None:
        """Look for a proof that a process is the run's own; the caller holds it pinned."""
        return self.run.prove(pid)

    def is_adopted(self, key: ProcessKey) -> bool:
        """Tell whether a process was certainly started by another one: no Popen of this process waits for it."""
        return self._first_parents.get(key, self.run.pid) != self.run.pid

    def note_adopted(self, keys: Iterable[ProcessKey]) -> None:
        """Take in that processes were started by others, though they were never seen below those."""
        self._first_parents |= dict.fromkeys(keys, _NOBODY)

    def _first_parent(self, process: OwnedProcess, sessions: Collection[int]) -> int:
        """Say whose child a process was at first: that of a daemon, forked twice, has most often ended unseen.

        A child is born into the session of its parent, and leaves it for one of its own number alone. In that of a
        third it was born.
        """
        if process.parent_pid == self.run.pid and process.session_id not in (process.pid, *sessions):
            return _NOBODY
        return process.parent_pid

    def _owned(self, stats: Iterable[Stat]) -> Iterator[OwnedProcess]:
        for stat in stats:
            # Where only the run's own can be below it, the walk itself is the proof.
            proof = self.run.prove(stat.pid) if self.run.may_adopt_strangers else Proof.DESCENDANT
            if proof is not None:
                yield OwnedProcess.from_stat(stat, proof)

    def _prove(self, pid: int) -> OwnedProcess | None:
        proof = self.run.prove(pid)
        stat = self.procfs.stat(pid) if proof else None
        return OwnedProcess.from_stat(stat, proof) if stat and proof else None

    def _below_orphan(self, orphan: OwnedProcess) -> dict[ProcessKey, OwnedProcess]:
        found = {}
        for stat in descendants_of(self.procfs, orphan.pid, self.run.baseline):
            process = self._prove(stat.pid)
            if process is not None:
                found[process.key] = process
        return found

    def _marked_pids(self, known: set[int]) -> Iterator[int]:
        yield from marked_pids(self.procfs, self.run.claim, known)
        yield from (key.pid for key in self.run.claim.recorded if key.pid not in known)

    def _children(self) -> tuple[OwnedProcess, ...]:
        return tuple(
            OwnedProcess(
                key=child.key,
                parent_pid=self.run.pid,
                proof=Proof.DESCENDANT,
                name=child.name,
                is_zombie=child.is_zombie,
            )
            for child in children_by_psutil()
            if child.key not in self.run.baseline
        )


def marked_pids(procfs: Procfs, claim: Claim, known: Iterable[int] = ()) -> Iterator[int]:
    """Find the processes that bear a run's cookie or hold its ledger: candidates, each still to be proved.

    Args:
        procfs: where to read.
        claim: of the run.
        known: numbers that need no look.
    """
    passed_over = {*known, os.getpid()}
    for pid in procfs.pids():
        # The start first: a process that hangs in the kernel may let whoever reads its environment hang too.
        start_ticks = procfs.start_ticks(pid) if pid not in passed_over else None
        if start_ticks is None or start_ticks < claim.start_ticks:
            continue
        environ = procfs.environ(pid)
        if environ == b"":
            environ = _environ_after_exec(procfs, pid)
        if claim.bears_cookie(environ) or claim.holds_ledger(procfs, pid):
            yield pid


def _session_here() -> int:
    return os.getsid(0) if hasattr(os, "getsid") else 0


def _environ_after_exec(procfs: Procfs, pid: int) -> bytes | None:
    """Read the environment of a process that is just being executed; threads of the kernel never have one."""
    stat = procfs.stat(pid)
    if stat is None or stat.parent_pid == _KTHREADD:
        return None
    procfs.wait_for_exec(pid)
    return procfs.environ(pid)
