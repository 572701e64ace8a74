"""What all functions of a script share: how memory is read, the steps, and which `watch()` is open."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from pytest_gpuclean.cleaning import Cleaning
from pytest_gpuclean.cleanup import CLEANERS
from pytest_gpuclean.cleanup.interface import Cleaner, Occasion
from pytest_gpuclean.cleanup.settle import KnownThreads, ThreadWatch
from pytest_gpuclean.cleanup.system import SystemCleaners
from pytest_gpuclean.memory.gauge import Gauge, held
from pytest_gpuclean.model.cleanup import CleanupResult, Level
from pytest_gpuclean.model.memory import Bytes, Snapshot
from pytest_gpuclean.scripts.own import OwnProcesses

Flow = tuple[int, int]
"""A thread, and the task of asyncio that it is at: what runs in another one cannot be told apart by processes."""

_FIRST_PATIENCE_SECONDS = 2.0
"""Where it is not known what was in use before the run: what a script keeps for itself would be waited for."""
_LEAST_PATIENCE_SECONDS = 0.5


class OpenWatch(Protocol):
    """A `watch()` that has begun."""

    own: OwnProcesses | None
    flow: Flow
    is_closed: bool


class Session:
    """One script: this process.

    Args:
        gauge: reads the memory.
        cleaners: the steps of a cleanup; all that are known by default.
        system: the steps that a user can name.
    """

    def __init__(
        self,
        gauge: Gauge | None = None,
        cleaners: Iterable[Cleaner] | None = None,
        system: SystemCleaners | None = None,
    ) -> None:
        self.pid = os.getpid()
        self.gauge = gauge or Gauge("all")
        self.cleaners = list(cleaners) if cleaners is not None else [cleaner() for cleaner in CLEANERS]
        self.system = system or SystemCleaners()
        self.callables: list[Callable[[], object]] = []
        self.hints_told: set[str] = set()
        self.base: Bytes = {}
        """What live objects held when a watch began or a cleanup ended; nothing before the first of them."""
        self._has_base = False
        self._patience_seconds = _FIRST_PATIENCE_SECONDS
        self._threads = ThreadWatch()
        self.threads: KnownThreads = self._threads.known()
        self._cleaning = Cleaning(self.gauge.read, ())
        self._outside: OwnProcesses | None = None
        self._open: list[OpenWatch] = []
        self._lock = threading.RLock()

    # -- memory -------------------------------------------------------------------------------------------------

    def clean(self, steps: Iterable[Cleaner], level: Level, *, ends_run: bool = False) -> CleanupResult:
        """Run steps between two readings.

        Args:
            steps: in their order; one that fails leaves the others.
            level: how thorough they are.
            ends_run: whether a run of the script ends with it, and the next one begins.
        """
        result, end = self._cleaning.run_steps(steps, Occasion(level=level), self.gauge.read())
        if ends_run:
            self.renew(end)
        return result

    def renew(self, snapshot: Snapshot) -> None:
        """Take what is in use now for what the next run begins with."""
        self.base = held(snapshot)
        if not self._has_base:
            self._has_base, self._patience_seconds = True, math.inf
        self.threads = self._threads.known()

    def patience_for(self, limit_seconds: float) -> float:
        """Say how long to wait for threads: less where waiting has not helped, so that one that stays costs little.

        Args:
            limit_seconds: the upper bound.
        """
        return min(limit_seconds, self._patience_seconds)

    def learn(self, waited_seconds: float, *, helped: bool) -> None:
        """Take in whether a wait has brought the memory back.

        Args:
            waited_seconds: how long it was at most.
            helped: whether it has.
        """
        self._patience_seconds = math.inf if helped else max(_LEAST_PATIENCE_SECONDS, waited_seconds / 2)

    def take_callables(self) -> list[Callable[[], object]]:
        """Hand over what is to be called, the last one given first."""
        taken, self.callables = self.callables[::-1], []
        return taken

    # -- processes ----------------------------------------------------------------------------------------------

    def mark(self) -> OwnProcesses:
        """Begin to mark what the script starts outside of any `watch()`, once."""
        with self._lock:
            if self._outside is None:
                self._outside = OwnProcesses("the script", is_whole=False)
            return self._outside

    def own(self) -> OwnProcesses | None:
        """Give the processes that are the script's own here; None where those of several flows cannot be told apart."""
        with self._lock:
            if not self._open:
                return self.mark()
            return self._open[-1].own if self._is_one_flow() else None

    def disown(self, pid: int) -> None:
        """Let a process go on for whatever is around the watch that it was started in."""
        with self._lock:
            for own in [*(watch.own for watch in self._open), self._outside]:
                if own is not None:
                    with contextlib.suppress(ValueError):  # it has been let go of already
                        own.disown(pid)

    @property
    def is_watched(self) -> bool:
        """Whether some `watch()` is open."""
        return bool(self._open)

    def enter(self, watch: OpenWatch, make: Callable[[], OwnProcesses]) -> None:
        """Open a watch; it has processes of its own unless another flow has one open."""
        with self._lock:
            self._open.append(watch)
            if self._is_one_flow():
                watch.own = make()

    def may_stop(self, watch: OpenWatch) -> bool:
        """Tell whether what has been started since a watch began is its own, and nobody else's."""
        with self._lock:
            return watch.own is not None and self._open[-1] is watch and self._is_one_flow()

    def leave(self, watch: OpenWatch) -> None:
        """Close a watch. What each has changed in this process is taken back in the order of their beginnings."""
        with self._lock:
            watch.is_closed = True
            while self._open and self._open[-1].is_closed:
                own = self._open.pop().own
                if own is not None:
                    own.end()

    def _is_one_flow(self) -> bool:
        return len({watch.flow for watch in self._open}) <= 1


def flow_here() -> Flow:
    """Say which thread and which task of asyncio this is."""
    task = None
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no loop runs in this thread
            task = None
    return threading.get_ident(), id(task) if task is not None else 0


# A script has no stash to keep this in. One at most; that of a fork's parent is replaced.
_SESSIONS: list[Session] = []


def session() -> Session:
    """Give the session of this process."""
    if not _SESSIONS or _SESSIONS[0].pid != os.getpid():
        begin(Session())
    return _SESSIONS[0]


def begin(new: Session) -> None:
    """Make a session this process's own, such as one with other steps.

    Args:
        new: the session; it takes the place of the one before.
    """
    _SESSIONS[:] = [new]
