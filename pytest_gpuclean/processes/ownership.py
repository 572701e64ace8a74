"""Whose process it is. A name, a command line or a port proves nothing; what stands here does."""

from __future__ import annotations

import enum
import os
import secrets
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, replace

from pytest_gpuclean.model import Wire
from pytest_gpuclean.processes.children import children_by_psutil
from pytest_gpuclean.processes.identity import ProcessKey, ticks_now
from pytest_gpuclean.processes.lineage import Line, ancestors_of, descendants_of, line_above
from pytest_gpuclean.processes.procfs import Procfs, Stat, value_in
from pytest_gpuclean.processes.subreaper import adopt_orphans, adopts_orphans
from pytest_gpuclean.processes.tier import Tier, read_tier

COOKIE = "GPUCLEAN_RUN"
"""The variable that tells what a run started: the ids of the runs that it is inside of, joined by `/`."""


class Proof(enum.Enum):
    """Why a process is known to be the run's own."""

    DESCENDANT = "descendant"
    """Its line of parents leads to the run, or to a process that is the run's own by another proof."""
    COOKIE = "cookie"
    """The run's cookie was in its environment when it was executed."""
    OPEN_LEDGER = "open ledger"
    """It holds the run's own descriptor of its ledger file: forked from the run, and never executed since."""
    RECORDED = "recorded"
    """It stands in the run's ledger, from a time when another proof held."""
    NAMED = "named"
    """It is not the run's own: the user has named it (`--gpu-host-wide`)."""


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """The descriptor that a run holds open; a fork inherits it, and O_CLOEXEC closes it on exec.

    That somebody else has opened the same file proves nothing (an editor, the next run's sweep), so the number and
    the flags of the descriptor have to be the same too. Whoever opens it to look should not use the run's flags:
    O_APPEND for the run alone tells them apart.
    """

    device: int
    inode: int
    descriptor: int
    flags: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a run can prove its processes by, while it is alive and after it was killed. It goes into the ledger."""

    cookie: str
    uid: int
    boot_id: str
    pid_namespace: str
    start_ticks: int
    """When the run began: what bears its cookie has started later."""
    ledger: LedgerFile | None = None
    recorded: frozenset[ProcessKey] = frozenset()

    def holds_here(self, procfs: Procfs) -> bool:
        """Tell whether the run belongs to this start of the system and to this process namespace.

        Args:
            procfs: of the process that asks.
        """
        here = procfs.pid_namespace(os.getpid())
        return here is not None and (self.boot_id, self.pid_namespace) == (procfs.boot_id(), here)

    def bears_cookie(self, environ: bytes | None) -> bool:
        """Tell whether an environment bears this run's cookie, or that of a run inside it."""
        value = value_in(environ, COOKIE) if environ and os.fsencode(self.cookie) in environ else None
        return value is not None and (value == self.cookie or value.startswith(self.cookie + "/"))

    def holds_ledger(self, procfs: Procfs, pid: int) -> bool:
        """Tell whether a process holds the run's own descriptor of the ledger file."""
        ledger = self.ledger
        return (
            ledger is not None
            and procfs.file_of(pid, ledger.descriptor) == (ledger.device, ledger.inode)
            and procfs.flags_of(pid, ledger.descriptor) == ledger.flags
        )

    def prove(self, procfs: Procfs, stat: Stat) -> Proof | None:
        """Look for a proof that does not need the line of parents.

        The caller holds the process pinned, and checks afterwards that it is still the same.

        Args:
            procfs: where to look.
            stat: the process.
        """
        uids = procfs.uids(stat.pid)
        # Both: a setuid program of the run's runs as somebody else, and is left to the line of parents.
        if uids is None or (uids.real, uids.effective) != (self.uid, self.uid):
            return None
        if procfs.pid_namespace(stat.pid) != self.pid_namespace or stat.start_ticks < self.start_ticks:
            return None
        environ = procfs.environ(stat.pid)
        if not environ:
            procfs.wait_for_exec(stat.pid)
            environ = procfs.environ(stat.pid)
        if self.bears_cookie(environ):
            return Proof.COOKIE
        if self.holds_ledger(procfs, stat.pid):
            return Proof.OPEN_LEDGER
        return Proof.RECORDED if ProcessKey(stat.pid, stat.start_ticks) in self.recorded else None

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        ledger = self.ledger
        return {
            "cookie": self.cookie,
            "uid": self.uid,
            "boot_id": self.boot_id,
            "pid_namespace": self.pid_namespace,
            "start_ticks": self.start_ticks,
            "ledger": [ledger.device, ledger.inode, ledger.descriptor, ledger.flags] if ledger else None,
            "recorded": sorted(map(list, self.recorded)),
        }

    @classmethod
    def from_wire(cls, wire: Wire) -> Claim:
        """Read what `to_wire` wrote."""
        ledger = LedgerFile(*wire["ledger"]) if wire["ledger"] else None
        recorded = frozenset(ProcessKey(*key) for key in wire["recorded"])
        return cls(**{**wire, "ledger": ledger, "recorded": recorded})


class Run:
    """The run that this process is: what it started since `begin` is its own.

    Args:
        procfs: where processes are read.
        ledger_fd: the run's descriptor of its ledger file, opened with O_CLOEXEC; None where it has none.
        subreaper: whether to adopt orphans where the system can.
        environ: where the cookie goes for children to inherit.
    """

    def __init__(
        self,
        procfs: Procfs | None = None,
        *,
        ledger_fd: int | None = None,
        subreaper: bool = True,
        environ: MutableMapping[str, str] | None = None,
    ) -> None:
        self.procfs = procfs or Procfs()
        self.pid = os.getpid()
        self._environ = os.environ if environ is None else environ
        self._cookie_before = self._environ.get(COOKIE)
        self._adopted_before = adopts_orphans()
        reason = adopt_orphans(True) if subreaper else "switched off"
        self.tier: Tier = read_tier(self.procfs, no_subreaper=reason)
        self._ancestors = frozenset(ancestors_of(self.procfs, self.pid)) if self.tier.proc else frozenset()
        # Only now the cookie: a process that bears it was started after this.
        before = _stats_before(self.procfs, self.pid) if self.tier.proc else []
        self.baseline = frozenset(ProcessKey(stat.pid, stat.start_ticks) for stat in before) or frozenset(
            child.key for child in children_by_psutil()
        )
        self._disowned: frozenset[ProcessKey] = frozenset()
        # A zombie has no children any more. (More than one thread: its main thread alone has ended.)
        self._had_children = any(stat.state != "Z" or stat.threads > 1 for stat in before)
        self.claim = Claim(
            cookie="/".join(filter(None, [self._cookie_before, secrets.token_hex(8)])),
            uid=os.geteuid() if hasattr(os, "geteuid") else -1,
            boot_id=self.procfs.boot_id(),
            pid_namespace=self.procfs.pid_namespace(self.pid) or "",
            start_ticks=self._start_ticks(),
            ledger=_ledger_file(self.procfs, self.pid, ledger_fd),
        )
        self._environ[COOKIE] = self.claim.cookie

    @property
    def cookie(self) -> str:
        """The value of `GPUCLEAN_RUN` that the run's children inherit."""
        return self.claim.cookie

    @property
    def may_adopt_strangers(self) -> bool:
        """Whether an orphan that this process adopts may come from somebody else.

        A process from before the run is a child of this one in `sh -c 'daemon & exec pytest'`, and its orphans are
        adopted just like the run's own; pid 1 adopts everybody's.
        """
        return self._had_children or self.pid == 1

    def record(self, keys: Iterable[ProcessKey]) -> None:
        """Remember processes that were proved to be the run's own, for when the proof is gone: an orphan's line."""
        self.claim = replace(self.claim, recorded=self.claim.recorded | frozenset(keys))

    def forget(self, keys: Iterable[ProcessKey]) -> None:
        """Forget processes that have ended or that the user keeps."""
        self.claim = replace(self.claim, recorded=self.claim.recorded - frozenset(keys))

    def disown(self, key: ProcessKey) -> None:
        """Give a process away, with what is below it: it is treated like one from before the run.

        Args:
            key: the process; the caller has proved it to be the run's own, or there is nothing to give away.
        """
        self.forget([key])
        self._disowned |= {key}
        self.baseline |= {key}

    def prove(self, pid: int) -> Proof | None:
        """Look for a proof that a process is the run's own; None where there is any doubt.

        The caller holds the process pinned, and checks afterwards that it is still the same.

        Args:
            pid: its number now.
        """
        if os.getpid() != self.pid:  # a fork of the run
            return None
        if not self.tier.proc:
            children = {child.key for child in children_by_psutil()} - self.baseline
            return Proof.DESCENDANT if pid in {key.pid for key in children} else None
        stat = self.procfs.stat(pid)
        if stat is None or self._is_excluded(stat) or self._is_below_disowned(stat):
            return None
        return self.claim.prove(self.procfs, stat) or self._prove_by_line(stat)

    def end(self) -> None:
        """Take back the cookie and the adopting, as they were before."""
        if os.getpid() != self.pid:
            return
        if self._environ.get(COOKIE) == self.claim.cookie:
            if self._cookie_before is None:
                del self._environ[COOKIE]
            else:
                self._environ[COOKIE] = self._cookie_before
        if self._adopted_before is False:
            adopt_orphans(False)

    def _is_excluded(self, stat: Stat) -> bool:
        key = ProcessKey(stat.pid, stat.start_ticks)
        return stat.pid in (1, self.pid, os.getppid()) or key in self.baseline or key in self._ancestors

    def _is_below_disowned(self, stat: Stat) -> bool:
        if not self._disowned:
            return False
        line = line_above(self.procfs, stat, self.pid)
        return line is None or any(above.key in self._disowned for above in line.above)

    def _prove_by_line(self, stat: Stat) -> Proof | None:
        line = line_above(self.procfs, stat, self.pid)
        if line is None or not self._is_line_of_ours(line):
            return None
        # Once more: who was looked at in between was then the same that stands in the line.
        return Proof.DESCENDANT if line_above(self.procfs, stat, self.pid) == line else None

    def _is_line_of_ours(self, line: Line) -> bool:
        for above in line.above:
            above_stat = self.procfs.stat(above.pid)
            if above_stat and not self._is_excluded(above_stat) and self.claim.prove(self.procfs, above_stat):
                return True
        return line.reaches_top and not self.may_adopt_strangers

    def _start_ticks(self) -> int:
        stat = self.procfs.stat(self.pid)
        own = stat.start_ticks if stat else 0
        # One tick back: starts are rounded down. A clock that does not fit own's start is not the one they are by.
        now = ticks_now() - 1
        return max(now, own)


def _stats_before(procfs: Procfs, pid: int) -> list[Stat]:
    """List what runs below this process now; more than once, for it may be about to fork."""
    return [stat for _ in range(3) for stat in descendants_of(procfs, pid)]


def _ledger_file(procfs: Procfs, pid: int, descriptor: int | None) -> LedgerFile | None:
    if descriptor is None:
        return None
    found, flags = procfs.file_of(pid, descriptor), procfs.flags_of(pid, descriptor)
    # Without O_CLOEXEC every program that is executed would hold it: no proof then.
    if found is None or flags is None or not flags & os.O_CLOEXEC:
        return None
    return LedgerFile(*found, descriptor, flags)
