"""Who started what: each process is booked once, when it is first seen, to a test or to a fixture of a wider scope."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pytest_gpuclean.processes.discovery import OwnedProcess
from pytest_gpuclean.processes.identity import ProcessKey, ticks_now
from pytest_gpuclean.processes.live_objects import locks_made, pids_of_multiprocessing
from pytest_gpuclean.processes.ownership import Run
from pytest_gpuclean.processes.procfs import value_in


@dataclass(slots=True, eq=False)
class Starter:
    """A test or a fixture, in whose time processes came."""

    name: str
    """As it is told: the test, or `fixture 'server' (module scope)`."""
    lives: bool = True
    """Whether what it started may go on."""
    locks_before: int | None = field(default_factory=locks_made)
    """When it began, as `locks_made()` counts; None where no pool can be older, or that is not known."""


class Blame:
    """Books processes to whoever started them.

    Args:
        run: whose processes these are.
        started_in: the environment variable in which the runner tells what it is at, inherited by what is started
            then; empty where there is none.
        only_in_windows: whether what comes while no test is open is nobody's business.
    """

    def __init__(self, run: Run, started_in: str = "", *, only_in_windows: bool = False) -> None:
        self.starters: dict[ProcessKey, Starter] = {}
        """Of all processes of the run that were there at the last look."""
        self.settled: set[ProcessKey] = set()
        """What goes on: it is left alone, or was told already."""
        self.fixtures: dict[int, Starter] = {}
        """The live fixtures of a wider scope, by their keys."""
        self.test = Starter("", lives=False)
        """The test that is open, or was the last."""
        self._run = run
        self._started_in = started_in
        # A run inside a test of another run begins with what that one was at.
        self._place_outside = os.environ.get(started_in, "")
        self._only_in_windows = only_in_windows
        self._is_open = False
        self._begin_ticks = 0
        self._whole_run = Starter("the whole run", locks_before=None)
        self._stack: list[Starter] = [self.test]
        self._places: dict[ProcessKey, str] = {}
        """What the runner was at when a process was started, by its own account."""
        self._fixture_places: dict[str, Starter] = {}
        """What the runner was at when the processes of live fixtures were started."""
        self._trees: set[ProcessKey] = set()
        """What goes on together with everything that comes up below it."""
        self._lost: set[str] = set()
        """Tests in which something was not booked."""
        self.is_lost = False
        """Whether that is so of the time since the last test began."""

    # -- whose time it is ---------------------------------------------------------------------------------------

    def begin_test(self, test: str) -> None:
        """Begin a test: what comes from now on is its own."""
        self._is_open, self.is_lost = True, False
        self._begin_ticks = ticks_now()
        self.test = Starter(test)
        self._stack = [self.test]

    def end_test(self) -> None:
        """End it, once everything that it has started is booked."""
        self._is_open = False

    def begin_setup(self, key: int, name: str) -> None:
        """Begin the setup of a fixture: what comes in it is the fixture's."""
        starter = self.fixtures[key] = Starter(name)
        self._stack.append(starter)

    def end_setup(self, key: int) -> None:
        """End it."""
        starter = self.fixtures.get(key)
        self._stack = [other for other in self._stack if other is not starter]

    def begin_release(self, key: int) -> None:
        """Begin the end of a fixture: what it has started has to be gone when the test is closed."""
        starter = self.fixtures.pop(key, None)
        self._fixture_places = {place: other for place, other in self._fixture_places.items() if other is not starter}
        if starter is not None and self._only_in_windows and not self._is_open:
            self.settled.update(key for key, other in self.starters.items() if other is starter)
        elif starter is not None:
            starter.lives = False
            self._stack = [*(other for other in self._stack if other is not starter), starter]

    def lose_track(self, test: str) -> None:
        """Take it that something was not booked: what came in a test may be anybody's, and goes on to the run's end.

        Args:
            test: the test that runs.
        """
        self.is_lost = True
        self._lost |= {test, self.test.name}
        self._stack = [self.test]
        for key, starter in self.starters.items():
            if starter is self.test or not starter.lives:
                self.starters[key] = self._whole_run

    def end_all(self) -> None:
        """End the run: nothing that was started in it may go on."""
        for starter in (self.test, self._whole_run, *self.fixtures.values(), *self._stack):
            starter.lives = False

    # -- booking ------------------------------------------------------------------------------------------------

    def book(self, found: Iterable[OwnedProcess]) -> list[OwnedProcess]:
        """Say who started what is new; return that."""
        here = list(found)
        by_pid = {process.pid: process.key for process in here}
        new = [process for process in here if process.key not in self.starters]
        for process in new:
            starter = self.starters[process.key] = self._starter_of(process, by_pid)
            if process.key in self._places and starter in self.fixtures.values():
                self._fixture_places.setdefault(self._places[process.key], starter)
        return new

    def fixture_of_place(self, key: ProcessKey) -> Starter | None:
        """Find the live fixture in whose setup other processes were started at the same place as this one."""
        return self._fixture_places.get(self._places.get(key, ""))

    def forget_all_but(self, found: Iterable[OwnedProcess]) -> None:
        """Forget what has ended."""
        for key in self.starters.keys() - {process.key for process in found}:
            del self.starters[key]
            self.settled.discard(key)
            self._trees.discard(key)
            self._places.pop(key, None)

    def settle_tree(self, key: ProcessKey) -> None:
        """Let a process go on, with what comes up below it."""
        self.settled.add(key)
        self._trees.add(key)

    def may_live(self, key: ProcessKey) -> bool:
        """Tell whether a process is to go on."""
        starter = self.starters.get(key)
        return key in self.settled or (starter is not None and starter.lives)

    def due(self, found: Iterable[OwnedProcess], but: Starter | None = None) -> list[OwnedProcess]:
        """List what runs although whoever started it has come to an end.

        Args:
            found: what runs now; all of it is booked.
            but: a test that is about to end.
        """
        return [
            process
            for process in found
            if not process.is_zombie
            and process.key not in self.settled
            and ((starter := self.starters[process.key]) is but or not starter.lives)
        ]

    def _starter_of(self, process: OwnedProcess, by_pid: Mapping[int, ProcessKey]) -> Starter:
        """Say who started a process that is new: whoever started its parent, or whoever's time it is."""
        if self.is_lost:
            return self._whole_run
        parent = by_pid.get(process.parent_pid)
        if parent in self._trees:
            self.settle_tree(process.key)
        if parent in self.starters:
            is_served = parent in self.settled and parent not in self._trees
            return self._starter_of_served(process, self.starters[parent]) if is_served else self.starters[parent]
        if self._only_in_windows and not self._is_open and self._stack[-1] is self.test:
            self.settle_tree(process.key)
            return self.test
        environ = self._environ_of(process)
        place = self._place_in(environ)
        test = place.rpartition(" (")[0]
        if place:
            self._places[process.key] = place
        if test and test != self.test.name:
            # An orphan that is seen only now: from the time of an earlier test, or of a fixture that came up then.
            for other, other_place in self._places.items():
                if other_place == place and other in self.starters:
                    return self.starters[other]
            return self._whole_run if test in self._lost else Starter(test, lives=False, locks_before=None)
        if not test and self._is_nobodys(process, environ):
            self.settle_tree(process.key)
        return self._stack[-1]

    def _starter_of_served(self, process: OwnedProcess, server_starter: Starter) -> Starter:
        """Say for whom a server of the run's own libraries (a forkserver) has started a process.

        Its environment is that of the server, so it tells nothing.
        """
        if process.pid in pids_of_multiprocessing():
            return self._stack[-1]
        # A worker has asked for it, somebody's whom this process does not know: on doubt it goes on.
        return server_starter if server_starter.lives else self._whole_run

    def _environ_of(self, process: OwnedProcess) -> bytes | None:
        environ = self._run.procfs.environ(process.pid)
        if not environ:  # it is just being executed: Popen returns as early as that
            self._run.procfs.wait_for_exec(process.pid)
            environ = self._run.procfs.environ(process.pid)
        return environ

    def _place_in(self, environ: bytes | None) -> str:
        place = value_in(environ, self._started_in) if self._started_in else None
        return "" if place is None or place == self._place_outside else place

    def _is_nobodys(self, process: OwnedProcess, environ: bytes | None) -> bool:
        """Whether it came between tests, or while they were collected: whoever started it there looks after it."""
        if self._stack[-1] is not self.test:
            return False
        if process.key.start_ticks < self._begin_ticks:
            return True
        # It was executed with the run's environment, at a time when the runner was at nothing.
        return bool(self._started_in) and self._run.claim.bears_cookie(environ)
