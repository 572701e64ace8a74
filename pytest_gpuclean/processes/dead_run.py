"""What a dead run left, and whether it can be told apart from what is the user's own by now.

A tmux server that a test had started outlives the run, and so does its cookie: a user who works in that tmux starts an
editor, or this very run, with the cookie of the dead one. A cookie alone is therefore believed only as long as nothing
speaks against it. On doubt a process is told, and left alone.
"""

from __future__ import annotations

import signal
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pytest_gpuclean.processes.around import Around
from pytest_gpuclean.processes.command import command_line, read_command
from pytest_gpuclean.processes.discovery import OwnedProcess, marked_pids
from pytest_gpuclean.processes.families import families_with
from pytest_gpuclean.processes.families.interface import Family, Kind, recognize
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.lineage import Link, descendants_of, line_above
from pytest_gpuclean.processes.ownership import Proof
from pytest_gpuclean.processes.procfs import Procfs, Stat
from pytest_gpuclean.processes.run_record import RunRecord
from pytest_gpuclean.processes.surroundings import Surroundings

_HOSTS = ("tmux server", "screen", "D-Bus", "Gradle daemon", "Bazel server")
"""Families whose processes start what their user asks them to, long after the run."""
_SESSIONS = ("tmux server", "screen")
"""Those of them in which a user works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A process that a dead run is proved to have left, with what may speak against it."""

    process: OwnedProcess
    terminal: int
    cgroup: str
    host: str
    """What it is where it starts things for its user, such as `tmux server`; else empty."""
    is_recorded: bool

    @property
    def key(self) -> ProcessKey:
        """Which process it is."""
        return self.process.key


def find_doubts(
    candidates: Iterable[Candidate], record: RunRecord, inside: ProcessKey | None = None
) -> dict[ProcessKey, str]:
    """Say of which processes it is not sure that they are no user's own by now, and why.

    Args:
        candidates: all that the run is proved to have left.
        record: the run.
        inside: where this session itself is inside of what the run left, the topmost process above it that is.
    """
    found = {candidate.process.pid: candidate for candidate in candidates}
    sure = set(_sure_ones(found, inside))
    doubts: dict[ProcessKey, str] = {}
    for candidate in found.values():
        elsewhere = "" if candidate.key in sure else _why_elsewhere(candidate, record)
        if elsewhere:
            doubts[candidate.key] = elsewhere
            # Whoever works in that terminal would lose it with the server that it belongs to.
            for above in _line_of(found, candidate):
                doubts.setdefault(above.key, f"pid {candidate.process.pid} is below it: {elsewhere}")
    hosts = [each for each in found.values() if each.host or (each.key not in sure and _why_elsewhere(each, record))]
    doubts = {**dict(_doubts_by_time(found, sure, hosts, inside)), **doubts}
    for candidate in found.values():
        for above in _line_of(found, candidate):
            if above.key in doubts and candidate.key not in doubts:
                doubts[candidate.key] = f"it is below pid {above.process.pid}: {doubts[above.key]}"
    return doubts


def _sure_ones(found: Mapping[int, Candidate], inside: ProcessKey | None) -> Iterator[ProcessKey]:
    """Give those for which more than a cookie speaks: forks of the run, and what it had written down.

    What a user started in the run's lifetime, from a session that the run had started, is written down too.
    """
    sessions = [candidate.key for candidate in found.values() if candidate.host in _SESSIONS]
    first = min((key.start_ticks for key in (*sessions, inside) if key), default=None)
    for candidate in found.values():
        is_in_time = first is None or candidate.key.start_ticks < first
        if candidate.process.proof is Proof.OPEN_LEDGER or (candidate.is_recorded and is_in_time):
            yield candidate.key


def _doubts_by_time(
    found: Mapping[int, Candidate], sure: Container[ProcessKey], hosts: Iterable[Candidate], inside: ProcessKey | None
) -> Iterator[tuple[ProcessKey, str]]:
    """Doubt what nothing but its time speaks for, where the cookie has come to be in a user's hands."""
    first = min(hosts, key=lambda candidate: candidate.key.start_ticks, default=None)
    for candidate in found.values():
        line = [candidate, *_line_of(found, candidate)]
        is_by_line = candidate.process.proof is Proof.DESCENDANT
        if is_by_line or candidate.host or any(each.key in sure and not each.host for each in line):
            continue
        if inside is not None:
            reason = f"this session itself was started from what that run left (pid {inside.pid})"
            yield candidate.key, reason
        elif first is not None and candidate.key.start_ticks >= first.key.start_ticks:
            what = first.host or "a process of another session"
            reason = f"it started after {what} (pid {first.process.pid}), and a user may have started it from there"
            yield candidate.key, reason


def _why_elsewhere(candidate: Candidate, record: RunRecord) -> str:
    if candidate.terminal not in (0, record.terminal):
        return "it is in another terminal than the run was"
    return "it is in another control group than the run was" if candidate.cgroup != record.cgroup else ""


def _line_of(found: Mapping[int, Candidate], candidate: Candidate) -> Iterator[Candidate]:
    """Give what is above a candidate among the others, the nearest first."""
    seen = {candidate.process.pid}
    above = found.get(candidate.process.parent_pid)
    while above is not None and above.process.pid not in seen:
        yield above
        seen.add(above.process.pid)
        above = found.get(above.process.parent_pid)


class DeadRun:
    """Knows what a dead run left: the owner of it, for whoever stops it.

    Args:
        record: the run's ledger, which the caller holds locked.
        surroundings: what is never touched.
        procfs: where to look.
        families: families of others, asked before our own.
    """

    def __init__(
        self, record: RunRecord, surroundings: Surroundings, procfs: Procfs, families: tuple[Family, ...] = ()
    ) -> None:
        self.record = record
        self.procfs = procfs
        self.doubts: dict[ProcessKey, str] = {}
        self.doubted: dict[ProcessKey, OwnedProcess] = {}
        self._surroundings = surroundings
        # SIGINT would raise KeyboardInterrupt in a copy of the whole test run, which then writes reports of its own.
        fork = Kind(
            name="forked process",
            matches=lambda command: command_line(command) == record.command,
            first_signal=signal.SIGTERM,
            goes_with_parent=True,
        )
        self.others = (*families, fork)
        """Families to be asked before our own."""
        self.families = families_with(self.others)
        self._inside = self._find_inside()

    def survey(self, beyond: Iterable[int] = ()) -> tuple[OwnedProcess, ...]:
        """Look at all of the user's processes, whatever is asked for: there is no tree that holds them together."""
        claim = self.record.claim
        pids = {*beyond, *marked_pids(self.procfs, claim), *(key.pid for key in claim.recorded)}
        found: dict[int, OwnedProcess] = {}
        for pid in pids:
            process = self._look_at(pid)
            if process is not None:
                found[pid] = process
                for stat in descendants_of(self.procfs, pid):
                    below = None if stat.pid in found else self._look_at(stat.pid)
                    if below is not None:
                        found[below.pid] = below
        candidates = [self._candidate(process) for process in found.values()]
        self.doubts |= find_doubts(candidates, self.record, self._inside)
        self.doubted |= {process.key: process for process in found.values() if process.key in self.doubts}
        certain = [process for process in found.values() if process.key not in self.doubts]
        return tuple(sorted(certain, key=Around(found.values()).depth_of))

    def prove(self, pid: int) -> Proof | None:
        """Look for a proof that the dead run left this process, and that it is no user's own by now."""
        if pid in {key.pid for key in self.doubts}:
            return None
        proof = self._prove(pid)
        return None if proof is None or self._is_below_doubted(pid) else proof

    def is_adopted(self, key: ProcessKey) -> bool:  # noqa: ARG002
        """Say no: none of them is ever below this process."""
        return False

    def _look_at(self, pid: int) -> OwnedProcess | None:
        proof = self._prove(pid)
        stat = self.procfs.stat(pid) if proof else None
        return OwnedProcess.from_stat(stat, proof) if stat and proof else None

    def _candidate(self, process: OwnedProcess) -> Candidate:
        family = recognize(self.families, read_command(self.procfs, process.pid, 0))
        terminal, cgroup = self.procfs.terminal(process.pid) or 0, self.procfs.cgroup(process.pid) or ""
        # Asked last: what ended meanwhile has left both, and would pass for somebody else's session.
        if self.procfs.is_ending(process.pid):
            terminal, cgroup = 0, self.record.cgroup
        return Candidate(
            process=process,
            terminal=terminal,
            cgroup=cgroup,
            host=family.name if family and family.name in _HOSTS else "",
            is_recorded=process.key in self.record.claim.recorded,
        )

    def _prove(self, pid: int) -> Proof | None:
        stat = self.procfs.stat(pid)
        if stat is None or pid in (1, self._surroundings.pid):
            return None
        line = line_above(self.procfs, stat, self._surroundings.pid)
        if line is None or line.reaches_top:  # below this process: its own run's
            return None
        keys = (ProcessKey(pid, stat.start_ticks), *(link.key for link in line.above))
        if keys[0] in self._surroundings.ancestors or self._is_spared(keys):
            return None
        proof = self.record.claim.prove(self.procfs, stat)
        if proof is not None:
            return proof
        owned = self._is_below_owned(line.above)
        # Once more: who was looked at in between was then the same that stands in the line.
        return Proof.DESCENDANT if owned and line_above(self.procfs, stat, self._surroundings.pid) == line else None

    def _is_spared(self, keys: tuple[ProcessKey, ...]) -> bool:
        if any(key in self.record.kept or key == self._inside for key in keys):
            return True
        stat = self.procfs.stat(keys[0].pid)
        own = self._surroundings.own
        if own is not None and stat is not None and own.prove(self.procfs, stat):
            return True
        return self._surroundings.living_run_of(self.procfs, keys) is not None

    def _is_below_owned(self, above: tuple[Link, ...]) -> bool:
        for link in above:
            if link.key in self._surroundings.ancestors:
                return False
            stat = self.procfs.stat(link.pid)
            if stat and stat.start_ticks == link.start_ticks and self.record.claim.prove(self.procfs, stat):
                return True
        return False

    def _is_below_doubted(self, pid: int) -> bool:
        stat = self.procfs.stat(pid)
        line = line_above(self.procfs, stat, self._surroundings.pid) if stat else None
        return line is None or any(link.key in self.doubts for link in line.above)

    def _find_inside(self) -> ProcessKey | None:
        """Find the topmost of this process and those above it that the dead run is proved to have started.

        Everything below it may be the user's, as this process is.
        """
        stat = self.procfs.stat(self._surroundings.pid)
        here = ProcessKey(self._surroundings.pid, stat.start_ticks if stat else 0)
        for key in (*self._surroundings.ancestors[::-1], here):
            stat = self.procfs.stat(key.pid)
            if stat is not None and self._started(stat):
                return key
        own = self._surroundings.own
        return here if own is not None and own.cookie.startswith(self.record.claim.cookie + "/") else None

    def _started(self, stat: Stat) -> bool:
        claim = self.record.claim
        # A cookie is enough here, also of somebody who runs as another user: it is a reason to spare, not to stop.
        return claim.prove(self.procfs, stat) is not None or claim.bears_cookie(self.procfs.environ(stat.pid))
