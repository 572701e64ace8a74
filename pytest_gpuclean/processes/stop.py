"""Stopping processes that are the run's own: all together, in good order first, until nothing is left of them.

Before a process is signalled it is pinned, and its proof is read while it is; no proof, no signal.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.aftermath import clear_up
from pytest_gpuclean.processes.around import Around, Link, Owner, is_next_link
from pytest_gpuclean.processes.command import read_command, spared
from pytest_gpuclean.processes.discovery import OwnedProcess
from pytest_gpuclean.processes.families import families_with
from pytest_gpuclean.processes.families.interface import Command, Family, recognize
from pytest_gpuclean.processes.identity import NoPin, Pin, ProcessKey, pin
from pytest_gpuclean.processes.ports import ports_of
from pytest_gpuclean.processes.target import KILL, Target
from pytest_gpuclean.processes.waiting import wait_for_one

_CLEAN_READS = 3
_FREEZING_ROUNDS = 5
_LONGEST_POLL_SECONDS = 0.1
_PATIENT_STRAYS = 3
"""So many processes that come from nowhere while the others are stopped are asked to end; the next are killed."""
_MOST_STRAYS_TOLD = 20
_UNPROVED = "it could not be proved to be the run's own"


def stop(
    targets: Iterable[OwnedProcess],
    owner: Owner,
    *,
    settle_seconds: float,
    may_live: Callable[[ProcessKey], bool],
    started_by: Callable[[ProcessKey], str] = lambda key: "",  # noqa: ARG005
    families: tuple[Family, ...] = (),
    run_ends: bool = False,
) -> list[LeftProcess]:
    """Stop processes, what is below them, and what comes up meanwhile.

    Args:
        targets: the processes, as they were found.
        owner: proves each of them once more, and finds what comes up.
        settle_seconds: the upper bound for all of it together.
        may_live: tells of a process that it is to go on. What is below it goes on too.
        started_by: tells of a process which test or fixture started it, for the report.
        families: families of others, asked before our own.
        run_ends: whether everything that the owner owns and that may not live is stopped too, asked for or not, and
            what is left alone until the run ends. Else a process that was not asked for is stopped only where it is
            below a target, or evidently the next link of a chain that began with one.

    Returns:
        One entry for each target and for each process that was stopped with them.
    """
    stopping = _Stopping(owner, settle_seconds, may_live, families_with(families), run_ends=run_ends)
    try:
        stopping.run(tuple(targets))
        return stopping.report(started_by)
    finally:
        stopping.close()


class _Stopping:
    """One call of `stop`."""

    def __init__(
        self,
        owner: Owner,
        settle_seconds: float,
        may_live: Callable[[ProcessKey], bool],
        families: tuple[Family, ...],
        *,
        run_ends: bool,
    ) -> None:
        self._owner = owner
        self._procfs = owner.procfs
        self._settle_seconds = settle_seconds
        self._may_live = may_live
        self._families = families
        self._run_ends = run_ends
        self._pid = os.getpid()
        self._begin = time.monotonic()
        self._targets: dict[ProcessKey, Target] = {}
        self._others: dict[ProcessKey, LeftProcess | None] = {}
        """Looked at and not stopped; None where there is nothing to tell."""
        self._spared: dict[ProcessKey, str] = {}
        """Left alone together with what is below it, and why."""
        self._around = Around()
        self._unpinned: dict[ProcessKey, tuple[OwnedProcess, str]] = {}
        """Could not be pinned or proved until now, and why."""
        self._asked: frozenset[ProcessKey] = frozenset()
        self._vanished: list[OwnedProcess] = []
        """Of those that were asked for, the ones that were gone before they could be pinned."""
        self._strays = 0
        self._signalled_at: float | None = None

    def run(self, first: tuple[OwnedProcess, ...]) -> None:
        self._asked = frozenset(process.key for process in first)
        found = self._survey(process.pid for process in first)
        known = {process.key for process in found}
        self._take_in((*found, *(process for process in first if process.key not in known)), is_new=False)
        self._freeze()
        self._read_ports()
        clean_reads = 0
        while clean_reads < _CLEAN_READS:
            self._send_what_is_due()
            self._thaw()
            waited_for = [target for target in self._targets.values() if target.is_waited_for]
            if waited_for:
                self._wait(waited_for)
            if self._elapsed() >= self._settle_seconds:
                break
            is_news = self._take_in(self._survey(self._living_pids()), is_new=True)
            clean_reads = 0 if waited_for or is_news else clean_reads + 1

    def report(self, started_by: Callable[[ProcessKey], str]) -> list[LeftProcess]:
        for target in self._targets.values():
            if target.gone_at is not None:
                self._reap(target)
        clear_up(self._procfs, self._targets.values())
        for process, reason in self._unpinned.values():
            is_gone = self._is_gone(process)
            self._pass_over(process, "" if is_gone else reason, ended_by="itself" if is_gone else "")
        others = self._others
        told = [replace(left, started_by=started_by(key)) for key, left in others.items() if left is not None]
        strays = 0  # a chain may have hopped a thousand times
        for key, target in self._targets.items():
            strays += target.is_stray
            if strays > _MOST_STRAYS_TOLD and target.is_stray and target.gone_at is not None:
                continue
            told.append(target.entry(self._procfs, self._signalled_at, started_by(key)))
        return told

    def close(self) -> None:
        self._thaw()
        for target in self._targets.values():
            target.pin.close()

    # -- finding and pinning ------------------------------------------------------------------------------------

    def _survey(self, beyond: Iterable[int]) -> tuple[OwnedProcess, ...]:
        found = self._owner.survey(beyond)
        self._around = Around(found)
        return found

    def _take_in(self, found: Iterable[OwnedProcess], *, is_new: bool) -> bool:
        """Pin what is to be stopped; tell whether anything was there that was not known before."""
        known = len(self._targets) + len(self._others)
        for process in found:
            key = process.key
            if key in self._targets or key in self._others:
                continue
            if key in self._asked or self._is_to_go(process):
                self._take_in_one(process, is_new=is_new and key not in self._asked)
            elif process.is_zombie:
                self._others[key] = None  # perhaps a link of a chain that has hopped on: it makes for another look
        return len(self._targets) + len(self._others) != known

    def _freeze(self) -> None:
        """Where a tree grows while it is looked at, hold it in place until all of it is known.

        They are let go on together, each with its first signal.
        """
        for _ in range(_FREEZING_ROUNDS):
            if not self._take_in(self._survey(self._living_pids()), is_new=False):
                return
            for target in self._targets.values():
                target.freeze()

    def _thaw(self) -> None:
        for target in self._targets.values():
            target.thaw()

    def _take_in_one(self, process: OwnedProcess, *, is_new: bool) -> None:
        spared = self._why_spared(process)
        if spared:
            self._pass_over(process, spared)
            return
        pinned = pin(self._procfs, process.pid)
        if isinstance(pinned, NoPin):
            # Found anew in the next round: descriptors that have run out are free once others have ended.
            self._unpinned[process.key] = (process, pinned.reason)
            return
        self._unpinned.pop(process.key, None)
        if pinned is None:
            self._pass_over(process, ended_by="itself")
            return
        target = self._make_target(process, pinned, is_new=is_new)
        if target is None:
            pinned.close()
        else:
            self._strays += target.is_stray
            self._targets[process.key] = target
            self._spare_if_left_alone(target)

    def _make_target(self, process: OwnedProcess, pinned: Pin, *, is_new: bool) -> Target | None:
        """Prove a pinned process to be the run's own. Only what comes out of here is ever signalled."""
        if pinned.key != process.key:  # its number was given to another process
            self._pass_over(process, ended_by="itself")
            return None
        if pinned.is_gone():
            if self._owner.is_adopted(process.key):
                pinned.reap()
            self._pass_over(process, ended_by="itself")
            return None
        proof = self._owner.prove(process.pid)
        command = read_command(self._procfs, process.pid, self._pid)
        if not pinned.is_same():
            self._pass_over(process, ended_by="itself")
            return None
        if proof is None:
            # Tried again in the next round: its line of parents may just have been changing.
            self._unpinned[process.key] = (process, _UNPROVED)
            return None
        is_stray = is_new and self._parent_of(process) is None
        family = recognize(self._families, command)
        return Target(process=process, pin=pinned, command=command, family=family, is_new=is_new, is_stray=is_stray)

    def _pass_over(self, process: OwnedProcess, reason: str = "", ended_by: str = "") -> None:
        is_told = process.key in self._asked
        if ended_by and is_told:
            self._vanished.append(process)
        self._others[process.key] = _untouched(process, reason, ended_by=ended_by) if is_told else None

    def _is_to_go(self, process: OwnedProcess) -> bool:
        """Tell whether a process that was not asked for is to be stopped too."""
        for above in self._around.line_of(process):
            if above.key in self._targets:
                return True
            if self._may_live(above.key) or above.key in self._spared:
                return False
        return self._run_ends or self._comes_of_a_target(process)

    def _comes_of_a_target(self, process: OwnedProcess) -> bool:
        own = self._procfs.stat(self._pid)
        self._procfs.wait_for_exec(process.pid)
        argv = self._procfs.argv(process.pid)
        if argv is None:
            return True  # gone again: what cannot be pinned any more is not signalled, and makes for another look
        # Every fork of the run has the run's command line: that tells nothing beside others that are to go on.
        if argv == self._procfs.argv(self._pid) and any(self._may_live(other.key) for other in self._around):
            argv = ()
        links = [Link(target.process, target.command.argv) for target in self._targets.values()]
        links += [Link(gone, argv if gone.name == process.name else ()) for gone in self._vanished]
        return is_next_link(Link(process, argv), links, run_session=own.session_id if own else 0)

    def _parent_of(self, process: OwnedProcess) -> Target | None:
        """Find the nearest process above it that is being stopped and lives."""
        for above in self._around.line_of(process):
            target = self._targets.get(above.key)
            if target is not None and above.key != process.key and target.gone_at is None:
                return target
        return None

    # -- leaving alone ------------------------------------------------------------------------------------------

    def _why_spared(self, process: OwnedProcess) -> str:
        return next(
            (self._spared[above.key] for above in self._around.line_of(process) if above.key in self._spared), ""
        )

    def _spare_if_left_alone(self, target: Target) -> bool:
        family = target.family
        if family is None or not family.left_alone or (family.until_run_ends and self._run_ends):
            return False
        key = target.process.key
        left = spared(target.process.pid, target.command, family, reason=family.left_alone)
        self._others[key] = left if key in self._asked else None
        if family.spares_children:
            self._spared[key] = f"it belongs to {family.name}: {family.left_alone}"
        self._targets.pop(key)
        target.thaw()
        target.pin.close()
        return True

    # -- signals ------------------------------------------------------------------------------------------------

    def _send_what_is_due(self) -> None:
        now = time.monotonic()
        for target in list(self._targets.values()):
            if not target.is_waited_for:
                continue
            number = self._due(target, now)
            if number is None or self._has_become_left_alone(target):
                continue
            self._signalled_at = self._signalled_at or now
            target.send(self._procfs, number, now, longest_seconds=0.4 * self._settle_seconds)

    def _due(self, target: Target, now: float) -> signal.Signals | None:
        if self._elapsed() >= 0.75 * self._settle_seconds or (target.is_stray and self._strays > _PATIENT_STRAYS):
            return KILL
        if now < target.deadline and (target.sent or self._is_left_to_parent(target)):
            return None
        signals = self._procfs.signals(target.process.pid)
        return target.next_signal(signals.ignores if signals else lambda number: False)  # noqa: ARG005

    def _is_left_to_parent(self, target: Target) -> bool:
        parent = self._parent_of(target.process)
        if parent is None or parent.is_given_up or KILL in parent.sent:
            return False
        if target.is_new or (target.family is not None and target.family.goes_with_parent):
            return True
        return any(
            not above.family.tree_at_once
            for other in self._around.line_of(target.process)
            if (above := self._targets.get(other.key))
            and above is not target
            and above.family
            and above.gone_at is None
        )

    def _has_become_left_alone(self, target: Target) -> bool:
        """Look once more right before a signal: a fork may have executed a service that is left alone."""
        self._procfs.wait_for_exec(target.process.pid)
        argv = self._procfs.argv(target.process.pid)
        if not argv or argv == target.command.argv:
            return False
        target.command = read_command(self._procfs, target.process.pid, self._pid)
        target.family = recognize(self._families, target.command)
        return self._spare_if_left_alone(target)

    # -- waiting ------------------------------------------------------------------------------------------------

    def _wait(self, waited_for: list[Target]) -> None:
        """Sleep until one of them ends, or until something is due."""
        now = time.monotonic()
        until = min([self._begin + self._settle_seconds, *(target.deadline for target in waited_for)])
        seconds = min(max(0.0, until - now), _LONGEST_POLL_SECONDS)
        wait_for_one([target.pin for target in waited_for], seconds)
        now = time.monotonic()
        for target in waited_for:
            if target.pin.is_gone():
                target.gone_at = now
                self._reap(target)

    def _reap(self, target: Target) -> None:
        """Take away an exit status that nobody waits for; a Popen, or whoever forked a child, keeps its own.

        Where its parent is about to end too, it is tried once more at the end: then it is this process's own.
        """
        if not self._owner.is_adopted(target.process.key) or target.pin.reap():
            target.pin.close()

    # -- ports and the report -----------------------------------------------------------------------------------

    def _read_ports(self) -> None:
        by_pid = {target.process.pid: target for target in self._targets.values()}
        found = ports_of(self._procfs, [*by_pid, self._pid])
        if isinstance(found, Unavailable):
            return
        own = found.pop(self._pid, ())  # a fork inherits the run's own listeners: they are not its to free
        here = self._procfs.net_namespace(self._pid)
        for pid, ports in found.items():
            by_pid[pid].ports = tuple(port for port in ports if port not in own)
            by_pid[pid].shares_ports = self._procfs.net_namespace(pid) == here

    def _is_gone(self, process: OwnedProcess) -> bool:
        stat = self._procfs.stat(process.pid)
        return stat is None or stat.start_ticks != process.key.start_ticks or self._procfs.is_ending(process.pid)

    def _elapsed(self) -> float:
        return time.monotonic() - self._begin

    def _living_pids(self) -> list[int]:
        return [target.process.pid for target in self._targets.values() if target.gone_at is None]


def _untouched(process: OwnedProcess, reason: str, ended_by: str = "") -> LeftProcess:
    return spared(process.pid, Command(name=process.name), reason=reason, ended_by=ended_by)
