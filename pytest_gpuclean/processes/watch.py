"""Who started what: a process is booked to the test or the fixture in whose time it came, and judged when that ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal

from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.blame import Blame, Starter
from pytest_gpuclean.processes.command import label
from pytest_gpuclean.processes.discovery import Discovery, OwnedProcess, has_children
from pytest_gpuclean.processes.ending import Ending
from pytest_gpuclean.processes.families import families_with
from pytest_gpuclean.processes.families.interface import Family
from pytest_gpuclean.processes.identity import ProcessKey, ticks_now
from pytest_gpuclean.processes.ledger import Ledger
from pytest_gpuclean.processes.live_objects import LiveObject, live_objects, may_be_pools
from pytest_gpuclean.processes.ownership import Run
from pytest_gpuclean.processes.recognizer import Recognizer
from pytest_gpuclean.processes.run_record import Seen
from pytest_gpuclean.processes.tier import Tier
from pytest_gpuclean.processes.waiting import wait_for_ends

_MOMENT_SECONDS = (0.5, 0.1)
"""How long a process may take to go by itself: at first, and at least where waiting has never helped."""
_BLINK_SECONDS = 0.02
"""So long before anything is collected for its sake."""
_ENTRY_SECONDS = 0.05
"""How long after its start a worker stands in its pool."""
_ENTRY_ROUNDS = 4

Mode = Literal["kill", "fail", "report"]
GpuBytesOf = Callable[[Collection[int]], Mapping[int, int | None]]
"""Tells by process number how much GPU memory each holds; None where that is not known."""
HeldBy = Callable[[list[object]], Mapping[int, int]]
"""Tells which of some objects (by `id`) the value of a live fixture holds, and the fixture's key."""


class ProcessWatch:
    """Looks after every test whether something still runs that the test started, and stops it.

    Args:
        run: the run whose processes these are.
        mode: `report` stops nothing.
        settle_seconds: the upper bound for stopping what one test left.
        families: families of others, asked before our own.
        started_in: the environment variable in which the runner tells what it is at, inherited by what is started
            then; empty where there is none.
        ledger: where what runs is written down, for whoever comes after this run was killed.
        only_in_windows: whether tests that are not opened here are none of its business.
        gpu_bytes_of: reads what processes hold of GPUs; asked once before any of them is signalled.
    """

    def __init__(
        self,
        run: Run,
        *,
        mode: Mode = "kill",
        settle_seconds: float = 10.0,
        families: tuple[Family, ...] = (),
        started_in: str = "",
        only_in_windows: bool = False,
        ledger: Ledger | None = None,
        gpu_bytes_of: GpuBytesOf = lambda _: {},
    ) -> None:
        self.run = run
        self._gpu_bytes_of = gpu_bytes_of
        self.mode: Mode = mode
        """What is done about what a test leaves."""
        self._settle_seconds = settle_seconds
        self._ledger = ledger
        self._written: dict[ProcessKey, Seen] = {}
        self._discovery = Discovery(run)
        self._blame = Blame(run, started_in, only_in_windows=only_in_windows)
        self._only_in_windows = only_in_windows
        self._moment_seconds = _MOMENT_SECONDS[0]
        self._has_seen_any = False
        self._recognizer = Recognizer(run, families_with(families))
        self._ending = Ending(
            self._discovery,
            self._blame,
            self._recognizer,
            settle_seconds=settle_seconds,
            families=families,
        )

    @property
    def stops(self) -> bool:
        """Whether what is left is stopped."""
        return self.mode != "report"

    @property
    def tier(self) -> Tier:
        """How much this system lets be seen and done."""
        return self.run.tier

    # -- the flow of a test -------------------------------------------------------------------------------------

    def open(self, test: str) -> None:
        """Begin a test: what comes from now on is its own."""
        if self._only_in_windows or self._blame.is_lost:
            self.look()
        self._blame.begin_test(test)

    def lose_track(self, test: str) -> None:
        """Take it that something of a test was not booked: nothing is stopped for it before the run ends."""
        self._blame.lose_track(test)

    def begin_setup(self, key: int, name: str, scope: str) -> None:
        """Begin the setup of a fixture of a wider scope: what comes in it is the fixture's."""
        self.look()
        self._blame.begin_setup(key, f"fixture {name!r} ({scope} scope)")

    def end_setup(self, key: int) -> None:
        """End it."""
        if self.tier.subreaper:
            self.look()
        else:
            self._look_everywhere()  # a daemon of the fixture's is not below the run
        self._blame.end_setup(key)

    def begin_release(self, key: int) -> None:
        """Begin the end of a fixture: what it has started has to be gone when the test is closed."""
        self.look()
        self._blame.begin_release(key)

    def is_quiet(self) -> bool:
        """Tell whether nothing runs that has to be gone at the end of the test: 2 microseconds without children."""
        if not self._blame.starters and not has_children():
            return True
        return not self._blame.due(self.look(), but=self._blame.test)

    def close(self, release: Callable[[], None], held_by: HeldBy, *, thorough: bool = False) -> list[LeftProcess]:
        """End the test: stop what it left, and what the fixtures left that ended with it.

        Args:
            release: lets go of what the runner keeps, and collects: data loaders end their workers by that.
            held_by: tells which objects the values of live fixtures hold.
            thorough: whether to look at all of the user's processes, for those that have slipped away.

        Returns:
            What was left, with what became of it.
        """
        self._blame.test.lives = False
        found = self._look_everywhere() if thorough and self._may_have_slipped() else self.look()
        due = self._without_left_alone(self._blame.due(found))
        if due:
            self._hand_to_holders(due, held_by)
            due = self._blame.due(due)
        if due:  # most often it is on its way out
            self._wait_for_ends(due, _BLINK_SECONDS)
            due = self._blame.due(self._look_again(due))
        if due:
            release()
            due = self._wait_a_moment(due)
        if due:  # some may have come meanwhile: a pool renews its workers
            due, _ = self._sort_out_newest(due, held_by)  # these are decided about when the next test ends
        told = self._end(due) if due else []
        self._blame.end_test()
        return told

    def finish(self) -> list[LeftProcess]:
        """End the run: stop everything that it has started and that is not to be left alone."""
        self._blame.end_all()
        if os.getpid() != self.run.pid:
            return []
        self.look()
        due = self._without_left_alone(self._blame.due(self._look_everywhere()))
        due = self._wait_a_moment(due) if due else []
        due, newest = self._sort_out_newest(due) if due else ([], [])
        return self._end(due + newest) if due or newest else []

    def take_problems(self) -> list[str]:
        """Hand over what went wrong since this was asked last."""
        taken, self._recognizer.problems = self._recognizer.problems, []
        return taken

    def disown(self, pid: int) -> None:
        """Let a process of the run go on, with what is below it.

        Args:
            pid: its number.

        Raises:
            ValueError: where it is no process of this run.
        """
        below: set[int] = set()
        kept: set[ProcessKey] = set()
        for process in self.look():  # parents come before their children
            if process.parent_pid in below or (process.pid == pid and not process.is_zombie):
                below.add(process.pid)
                self._blame.settle_tree(process.key)
                self.run.disown(process.key)
                kept.add(process.key)
        if self._ledger is not None:
            self._ledger.keep(kept)
        if not below:
            raise ValueError(f"{pid!r} is no process that this run has started")

    # -- looking ------------------------------------------------------------------------------------------------

    def look(self) -> tuple[OwnedProcess, ...]:
        """Walk down from the run where it has children at all, and book what is new."""
        if os.getpid() != self.run.pid:  # a fork of the run has nothing to look after
            return ()
        if not has_children():
            if self._blame.starters and self.tier.subreaper:
                self._blame.forget_all_but(())
            return ()
        self._has_seen_any = True
        found = self._discovery.below()
        self._book(found)
        if self.tier.subreaper:  # else orphans that live are not seen below
            self._blame.forget_all_but(found)
        return found

    def _look_again(self, known: Iterable[OwnedProcess]) -> tuple[OwnedProcess, ...]:
        """Look below the run, and at processes of its own that may not be below it."""
        if os.getpid() != self.run.pid:
            return ()
        found = self._discovery.survey(process.pid for process in known)
        self._book(found)
        return found

    def _may_have_slipped(self) -> bool:
        return self._has_seen_any or not self.tier.is_full

    def _look_everywhere(self) -> tuple[OwnedProcess, ...]:
        if os.getpid() != self.run.pid:
            return ()
        found = self._discovery.everywhere()
        self._book(found)
        self._blame.forget_all_but(found)
        self._has_seen_any = any(not process.is_zombie for process in found)
        return found

    def _book(self, found: Iterable[OwnedProcess]) -> None:
        here = {process.key: process for process in found}
        new = self._blame.book(here.values())
        if new and self._ledger is not None:
            self._write_down(self._ledger, here, new)

    def _write_down(self, ledger: Ledger, here: Mapping[ProcessKey, OwnedProcess], new: Iterable[OwnedProcess]) -> None:
        self._written = {key: seen for key, seen in self._written.items() if key in here}
        for process in new:
            command, family = self._recognizer.recognize(process)
            name = self._blame.starters[process.key].name
            self._written[process.key] = Seen(key=process.key, label=label(command, family), started_by=name)
        ledger.write(self._written.values())

    # -- judging ------------------------------------------------------------------------------------------------

    def _without_left_alone(self, due: list[OwnedProcess]) -> list[OwnedProcess]:
        """Settle what is never stopped, or not before the run ends: shared services, the pools of libraries."""
        spares = set()
        for process in due:  # parents come before their children
            family = self._recognizer.recognize(process)[1]
            if process.parent_pid in spares:
                spares.add(process.pid)
                self._blame.settle_tree(process.key)
            elif family is not None and family.left_alone:
                self._blame.settled.add(process.key)
                if family.spares_children:
                    self._blame.settle_tree(process.key)
                    spares.add(process.pid)
        return self._blame.due(due)

    def _sort_out_newest(
        self, due: list[OwnedProcess], held_by: HeldBy | None = None
    ) -> tuple[list[OwnedProcess], list[OwnedProcess]]:
        """Hand to its holder also the worker that a pool's thread has only just started, and not yet entered.

        Returns:
            What is to end; and apart from it what is too new to tell, where one worker follows another.
        """
        newest: list[OwnedProcess] = []
        for _ in range(_ENTRY_ROUNDS):
            self._hand_to_holders(due, held_by)
            asked = {process.key for process in due}
            due = self._blame.due(self._look_again(due))  # without what has ended while it was asked for
            newest = [process for process in due if self._is_newest(process, asked)]
            if not newest or not may_be_pools():
                return due, []
            self._wait_for_ends(newest, _ENTRY_SECONDS)
        return [process for process in due if process not in newest], newest

    def _is_newest(self, process: OwnedProcess, asked: Collection[ProcessKey]) -> bool:
        """Tell whether a thread of the run may have started it just now: no test is at work any more."""
        if process.parent_pid != self.run.pid or self._discovery.is_adopted(process.key):
            return False
        return process.key not in asked or process.key.start_ticks >= ticks_now(seconds_ago=_ENTRY_SECONDS)

    def _hand_to_holders(self, due: Collection[OwnedProcess], held_by: HeldBy | None) -> None:
        """Book to a live fixture what its value holds, and let go on what a pool has that is older than its starter."""
        if not self._blame.fixtures and not may_be_pools():
            return
        objects = live_objects({process.pid for process in due})
        if self._blame.fixtures and held_by is not None:
            self._hand_to_fixtures(objects, due, held_by)
        self._leave_to_older_pools(objects, due)

    def _leave_to_older_pools(self, objects: Iterable[LiveObject], due: Iterable[OwnedProcess]) -> None:
        """Let go on what a pool has that was made before whoever gave it work: whoever made it looks after it."""
        made = {pid: found.made for found in objects if found.made is not None for pid in found.pids}
        for process in due:
            before = self._blame.starters[process.key].locks_before
            if process.pid in made and before is not None and made[process.pid] < before:
                self._blame.settle_tree(process.key)

    def _hand_to_fixtures(
        self, objects: Collection[LiveObject], due: Collection[OwnedProcess], held_by: HeldBy
    ) -> None:
        """Book to a live fixture what its value holds: a list of servers to which a test has added one."""
        holders = held_by([found.value for found in objects])
        by_pid: dict[int, Starter] = {}
        for found in objects:
            key = holders.get(id(found.value))
            if key in self._blame.fixtures:
                by_pid.update(dict.fromkeys(found.pids, self._blame.fixtures[key]))
        own = {pid for found in objects for pid in found.pids}
        for process in due:
            # An orphan that a fixture's process has left late: nobody here has started it.
            fixture = self._blame.fixture_of_place(process.key) if process.pid not in own else None
            if fixture is not None and process.parent_pid == self.run.pid:
                by_pid[process.pid] = fixture
        lines = {process.pid: process for process in due}
        for process in due:
            above: OwnedProcess | None = process
            while above is not None and above.pid not in by_pid:
                above = lines.get(above.parent_pid)
            if above is not None:
                self._blame.starters[process.key] = by_pid[above.pid]

    def _wait_a_moment(self, due: list[OwnedProcess]) -> list[OwnedProcess]:
        """Give what is on its way out the time for it; return what is still there."""
        still_there = self._blame.due(self._look_again(due))
        if not still_there:
            return []
        self._wait_for_ends(still_there, self._moment_seconds)
        still_there = self._blame.due(self._look_again(still_there))
        helped = len(still_there) < len(due)
        self._moment_seconds = _MOMENT_SECONDS[0] if helped else max(_MOMENT_SECONDS[1], self._moment_seconds / 2)
        return still_there

    def _wait_for_ends(self, processes: Iterable[OwnedProcess], limit_seconds: float) -> None:
        limit_seconds = min(limit_seconds, self._settle_seconds)
        wait_for_ends(self.run.procfs, [process.pid for process in processes], limit_seconds)

    def _end(self, due: list[OwnedProcess]) -> list[LeftProcess]:
        held = self._gpu_bytes_of([process.pid for process in due])
        told = self._ending.stop(due, self._look_again) if self.stops else self._ending.leave(due)
        return [replace(left, gpu_bytes=held.get(left.pid)) for left in told]
