"""What a helper process of the run leaves when it dies: its children come to this process, which has adopted them.

A test run hands its tests to worker processes, and each looks after its own. One that dies cannot, and what it has
forked may hold the pipe by which its end would be noticed: so this watches from a thread, not from the main loop.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterable

from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.command import read_command, spared
from pytest_gpuclean.processes.discovery import Discovery, OwnedProcess
from pytest_gpuclean.processes.families.interface import Command, Family, Kind
from pytest_gpuclean.processes.identity import NoPin, Pin, ProcessKey, pin
from pytest_gpuclean.processes.live_objects import live_objects
from pytest_gpuclean.processes.ownership import Run
from pytest_gpuclean.processes.stop import stop
from pytest_gpuclean.processes.trackers import without_ended_trackers

_SECOND_LOOK_SECONDS = 0.05
_POLL_SECONDS = 0.5
_MOST_ROUNDS = 20


class OrphanWatch:
    """Stops what the workers of a run leave when they die.

    Args:
        run: the run in this process, the parent of the workers.
        settle_seconds: the upper bound for stopping what one of them left.
        families: families of others, asked before our own.
        started_in: the environment variable in which a worker tells what it is at.
        stops: whether anything is stopped; else it is told.
    """

    def __init__(
        self,
        run: Run,
        *,
        settle_seconds: float = 10.0,
        families: tuple[Family, ...] = (),
        started_in: str = "",
        stops: bool = True,
    ) -> None:
        self.run = run
        self.left: list[LeftProcess] = []
        """What was left so far, with what became of it."""
        self._discovery = Discovery(run)
        self._settle_seconds = settle_seconds
        # A copy of a worker has its pipe to this process: on SIGINT it would report an interrupt of the whole run.
        fork = Kind(name="forked process", matches=self._is_fork_of_worker, first_signal=signal.SIGTERM)
        self._families = (fork, *families)
        self._worker_images: set[tuple[int, ...]] = set()
        self._started_in = started_in
        self._stops = stops
        self._workers: dict[int, Pin] = {}
        self._told: set[ProcessKey] = set()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def add_worker(self, pid: int) -> None:
        """Watch one more worker.

        Args:
            pid: a child of this process; one that is not (on another machine) is passed over.
        """
        stat = self.run.procfs.stat(pid)
        pinned = pin(self.run.procfs, pid) if stat is not None and stat.parent_pid == self.run.pid else None
        if pinned is None or isinstance(pinned, NoPin) or pinned.descriptor is None:
            return
        with self._lock:
            self._workers[pinned.descriptor] = pinned
            self._worker_images.add(self.run.procfs.image(pid))
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="gpuclean-workers", daemon=True)
            self._thread.start()

    def finish(self) -> list[LeftProcess]:
        """End the watch, once the workers have ended; return everything that was left."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join(self._settle_seconds + 2 * _POLL_SECONDS)
        self._end_orphans()
        for pinned in self._workers.values():
            pinned.close()
        self._workers.clear()
        return without_ended_trackers(self.run.procfs, self.left)

    def _watch(self) -> None:
        while not self._is_over.is_set():
            with self._lock:
                workers = dict(self._workers)
            poll = select.poll()
            for descriptor in workers:
                poll.register(descriptor, select.POLLIN)
            ended = [workers[descriptor] for descriptor, _ in poll.poll(_POLL_SECONDS * 1000)]
            if not ended or self._is_over.is_set():
                continue
            for pinned in ended:
                with self._lock:
                    self._workers.pop(pinned.descriptor or -1, None)
                pinned.close()
            self._end_orphans()

    def _end_orphans(self) -> None:
        if os.getpid() != self.run.pid or not self.run.tier.subreaper:
            return
        for _ in range(_MOST_ROUNDS):
            first = {process.key for process in self._orphans()}
            if not first:
                return
            # No object stands for a worker that is just being started, for a moment.
            time.sleep(_SECOND_LOOK_SECONDS)
            orphans = [process for process in self._orphans() if process.key in first]
            if orphans:
                self._end(orphans)

    def _orphans(self) -> list[OwnedProcess]:
        """List the children of this process that no object of it stands for: they were adopted."""
        children = [process for process in self._discovery.below() if process.parent_pid == self.run.pid]
        living = [process for process in children if not process.is_zombie]
        own = {pid for found in live_objects({process.pid for process in living}) for pid in found.pids}
        return [process for process in living if process.pid not in own and process.key not in self._told]

    def _end(self, orphans: Iterable[OwnedProcess]) -> None:
        orphans = list(orphans)
        places = {process.key: self._place_of(process) for process in orphans}
        asked = set(places)
        self._told |= asked
        self._discovery.note_adopted(asked)  # who would have waited for them is dead
        if not self._stops:
            self.left += [self._left_running(process, places[process.key]) for process in orphans]
            return
        kept = self._not_below(asked)

        def may_live(key: ProcessKey) -> bool:
            if key in kept or key in asked:
                return key in kept
            # A child that comes up meanwhile may be the worker that takes the place of the dead one, and no object
            # stands for it yet. An orphan among them is found in the next round.
            stat = self.run.procfs.stat(key.pid)
            return stat is not None and stat.parent_pid == self.run.pid

        self.left += stop(
            orphans,
            self._discovery,
            settle_seconds=self._settle_seconds,
            may_live=may_live,
            started_by=lambda key: places.get(key, ""),
            families=self._families,
        )

    def _left_running(self, process: OwnedProcess, started_by: str) -> LeftProcess:
        command = read_command(self.run.procfs, process.pid, self.run.pid)
        return spared(process.pid, command, reason="it was left running", started_by=started_by)

    def _is_fork_of_worker(self, command: Command) -> bool:
        return bool(command.image) and command.image in self._worker_images

    def _not_below(self, asked: set[ProcessKey]) -> set[ProcessKey]:
        """List what runs below this process, without some of its children and what is below those."""
        kept, passed_over = set(), set()
        for process in self._discovery.below():  # parents come before their children
            if process.key in asked or process.parent_pid in passed_over:
                passed_over.add(process.pid)
            else:
                kept.add(process.key)
        return kept

    def _place_of(self, process: OwnedProcess) -> str:
        place = self.run.procfs.environ_value(process.pid, self._started_in) if self._started_in else None
        return (place or "").rpartition(" (")[0]
