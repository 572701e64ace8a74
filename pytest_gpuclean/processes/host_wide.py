"""Stopping what is not the run's own, because the user has named it. The plan is told before anything is signalled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.around import Around
from pytest_gpuclean.processes.command import command_line, label, read_command
from pytest_gpuclean.processes.discovery import OwnedProcess
from pytest_gpuclean.processes.families import families_with
from pytest_gpuclean.processes.families.interface import Command, Family, recognize
from pytest_gpuclean.processes.families.shapes import program
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.lineage import ancestors_of, descendants_of, line_above
from pytest_gpuclean.processes.other_ledgers import OtherLedgers, other_ledgers
from pytest_gpuclean.processes.ownership import COOKIE, Claim, Proof
from pytest_gpuclean.processes.ports import holders_of
from pytest_gpuclean.processes.procfs import Procfs, Stat
from pytest_gpuclean.processes.run_folder import folders_of
from pytest_gpuclean.processes.selectors import Selector
from pytest_gpuclean.processes.stop import stop
from pytest_gpuclean.processes.surroundings import Surroundings, look_around


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A process that fits what the user has named."""

    key: ProcessKey
    why: str
    """What the user has named it by, such as `port:6006`, or what it is below."""
    name: str
    command: str
    spared: str = ""
    """Why it is left alone; empty where it is to be stopped."""

    @property
    def line(self) -> str:
        """Say it in one line."""
        what = f"{self.name} (pid {self.key.pid}): {self.command}"
        return f"{self.why} leaves {what}: {self.spared}" if self.spared else f"{self.why} stops {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would be stopped, and what would not although it fits."""

    selectors: tuple[Selector, ...]
    named: tuple[Named, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def to_stop(self) -> tuple[Named, ...]:
        """Those that are to be stopped."""
        return tuple(named for named in self.named if not named.spared)

    @property
    def lines(self) -> tuple[str, ...]:
        """Say all of it, a line each."""
        return (*(named.line for named in self.named), *self.notes)


def plan(
    selectors: Iterable[Selector],
    own: Claim | None = None,
    *,
    procfs: Procfs | None = None,
    folders: Iterable[str] | None = None,
    families: tuple[Family, ...] = (),
) -> Plan:
    """Find what the user has named, and say what would be stopped. Nothing is.

    Args:
        selectors: what is named; what means no processes is passed over.
        own: of this process's own run, which looks after what is its own.
        procfs: where processes are read.
        folders: where the ledgers of other runs are; by default the user's own.
        families: families of others, asked before our own for what is left alone.
    """
    procfs = procfs or Procfs()
    selectors = tuple(selector for selector in selectors if selector.means_processes)
    if not procfs.shows(os.getpid()):
        return Plan(selectors=selectors, notes=(f"{procfs.root} does not show this process: nothing is stopped",))
    with other_ledgers(procfs, folders_of() if folders is None else folders, clear=False) as ledgers:
        # Of the runs around this one, too, nothing is to be stopped.
        around = look_around(procfs, own, ledgers.living, spare_outer=True)
    return _Planner(procfs, selectors, around, ledgers, families_with(families)).plan()


def carry_out(
    planned: Plan,
    own: Claim | None = None,
    *,
    tell: Callable[[str], None],
    settle_seconds: float,
    procfs: Procfs | None = None,
    folders: Iterable[str] | None = None,
    families: tuple[Family, ...] = (),
) -> list[LeftProcess]:
    """Tell a plan, look once more, and stop what stands in the plan and still fits.

    Args:
        planned: the plan.
        own: of this process's own run.
        tell: is handed each line of the plan before anything is signalled, and each that comes up later before that.
        settle_seconds: the upper bound for all of it together.
        procfs: where processes are read.
        folders: where the ledgers of other runs are; by default the user's own.
        families: families of others, asked before our own.
    """
    for line in planned.lines:
        tell(line)
    if not planned.to_stop:
        return []
    procfs = procfs or Procfs()

    def look() -> Plan:
        return plan(planned.selectors, own, procfs=procfs, folders=folders, families=families)

    owner = _NamedOwner(procfs, look, planned, tell)
    return stop(
        owner.survey(),
        owner,
        settle_seconds=settle_seconds,
        may_live=lambda key: False,  # noqa: ARG005
        families=families,
        run_ends=True,
    )


@dataclass(slots=True)
class _Planner:
    """Looks at every process once."""

    procfs: Procfs
    selectors: tuple[Selector, ...]
    around: Surroundings
    ledgers: OtherLedgers
    families: tuple[Family, ...]
    _found: dict[ProcessKey, Named] = field(default_factory=dict)

    def plan(self) -> Plan:
        by_command = [selector for selector in self.selectors if not selector.port]
        for pid in self.procfs.pids() if by_command else ():
            argv = self.procfs.argv(pid)
            for selector in by_command if argv else ():
                stat = self._of_this_user(pid) if selector.fits(Command(argv=argv or ())) else None
                if stat is not None:
                    self._take(stat, read_command(self.procfs, pid, 0), selector)
        notes = [note for selector in self.selectors if selector.port for note in self._look_at_port(selector)]
        return Plan(selectors=self.selectors, named=tuple(self._found.values()), notes=tuple(notes))

    def _look_at_port(self, selector: Selector) -> Iterator[str]:
        holders = holders_of(self.procfs, selector.port)
        if isinstance(holders, Unavailable):
            yield f"{selector}: who listens cannot be told: {holders.reason}"
            return
        for pid in holders:
            stat = self._of_this_user(pid)
            command = read_command(self.procfs, pid, 0)
            if stat is not None:
                self._take(stat, command, selector)
            else:
                uids = self.procfs.uids(pid)
                whose = f"it belongs to uid {uids.real}" if uids else "whose it is cannot be told"
                if uids is not None and uids.real == uids.effective == os.geteuid():
                    whose = "it is in another process namespace"
                yield f"{selector} leaves {label(command)} (pid {pid}): {whose}"
        if not holders and any(port == selector.port for port, _ in self.procfs.listeners(os.getpid()) or ()):
            yield f"{selector}: somebody listens there who cannot be seen: another user's process"

    def _take(self, stat: Stat, command: Command, selector: Selector) -> None:
        spared = self._why_spared(stat, command)
        if spared is None:
            return
        self._add(stat, command, str(selector), spared)
        if spared or not selector.takes_what_is_below:
            return
        passed_over: set[int] = set()
        for below in descendants_of(self.procfs, stat.pid):
            is_seen = below.parent_pid not in passed_over and self._of_this_user(below.pid) is not None
            its_command = read_command(self.procfs, below.pid, 0) if is_seen else Command()
            its_spared = self._why_spared(below, its_command) if is_seen else None
            if its_spared is not None:
                self._add(below, its_command, f"{selector}, below pid {stat.pid},", its_spared)
            if its_spared != "":
                passed_over.add(below.pid)

    def _add(self, stat: Stat, command: Command, why: str, spared: str) -> None:
        key = ProcessKey(stat.pid, stat.start_ticks)
        name = label(command, recognize(self.families, command))
        named = Named(key=key, why=why, name=name, command=command_line(command), spared=spared)
        self._found.setdefault(key, named)

    def _of_this_user(self, pid: int) -> Stat | None:
        """Read a process where it runs as this user and in this namespace; None for any other one."""
        uids = self.procfs.uids(pid)
        if uids is None or (uids.real, uids.effective) != (os.geteuid(), os.geteuid()):
            return None
        here = self.procfs.pid_namespace(self.around.pid)
        if here is None or self.procfs.pid_namespace(pid) != here:
            return None
        stat = self.procfs.stat(pid)
        return None if stat is None or (stat.state in "ZX" and stat.threads <= 1) else stat

    def _why_spared(self, stat: Stat, command: Command) -> str | None:
        """Say why a process is left alone; None where it is this run's own business, and not worth a word."""
        key = ProcessKey(stat.pid, stat.start_ticks)
        if stat.pid in (1, self.around.pid) or key in self.around.ancestors:
            return "this very run is below it"
        line = line_above(self.procfs, stat, self.around.pid)
        if line is None:
            return "what it is below changes just now"
        if line.reaches_top or self._is_own(stat):
            return None
        record = self.around.living_run_of(self.procfs, (key, *(link.key for link in line.above)))
        if record is not None:
            return f"it belongs to a run that is alive: {record.name}"
        for living in self.around.living:
            if key in ancestors_of(self.procfs, living.key.pid):
                return f"a run that is alive is below it: {living.name}"
        is_unsure = self.ledgers.is_one_unknown or self.ledgers.is_one_refused
        if is_unsure and self.procfs.environ_value(stat.pid, COOKIE):
            return "it may belong to a run that is alive, whose ledger cannot be believed"
        if program(command) == "systemd":  # it listens for the services that it starts on demand
            return "it manages the user's session"
        family = recognize(self.families, command)
        return family.left_alone if family and family.left_alone and not family.until_run_ends else ""

    def _is_own(self, stat: Stat) -> bool:
        """Tell whether it belongs to this process's run, or to one around it in the same process."""
        own = self.around.own
        if own is not None and own.prove(self.procfs, stat):
            return True
        cookie = self.procfs.environ_value(stat.pid, COOKIE) or ""
        return not set(cookie.split("/")).isdisjoint(self.ledgers.own_ids)


class _NamedOwner:
    """Owns what stands in the plan and still fits it, and what comes up below that."""

    def __init__(self, procfs: Procfs, look: Callable[[], Plan], planned: Plan, tell: Callable[[str], None]) -> None:
        self.procfs = procfs
        self._look = look
        self._tell = tell
        self._told = {named.key: named for named in planned.to_stop}
        self._now: dict[ProcessKey, Named] = {}

    def survey(self, beyond: Iterable[int] = ()) -> tuple[OwnedProcess, ...]:  # noqa: ARG002
        """Look at all of it once more. What comes up below what is being stopped is told too, and stopped."""
        found = []
        self._now = {}
        for named in self._look().to_stop:
            stat = self.procfs.stat(named.key.pid)
            if stat is None or stat.start_ticks != named.key.start_ticks:
                continue
            if named.key not in self._told:
                above = ancestors_of(self.procfs, stat.pid)
                if self._told.keys().isdisjoint(above):
                    continue  # started since by somebody: not what was told
                self._told[named.key] = named
                self._tell(named.line)
            self._now[named.key] = named
            found.append(OwnedProcess.from_stat(stat, Proof.NAMED))
        return tuple(sorted(found, key=Around(found).depth_of))

    def prove(self, pid: int) -> Proof | None:
        """See whether it stands in the plan, and is still what was told."""
        stat = self.procfs.stat(pid)
        named = self._now.get(ProcessKey(pid, stat.start_ticks)) if stat else None
        if named is None or command_line(read_command(self.procfs, pid, 0)) != named.command:
            return None
        return Proof.NAMED

    def is_adopted(self, key: ProcessKey) -> bool:  # noqa: ARG002
        """Say no: none of them is ever below this process."""
        return False
