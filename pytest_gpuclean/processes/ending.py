"""Ending what is left: by the object that stands for it, then by signals; and telling what became of each process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.apart import run_apart
from pytest_gpuclean.processes.blame import Blame
from pytest_gpuclean.processes.command import read_command, spared
from pytest_gpuclean.processes.discovery import Discovery, OwnedProcess
from pytest_gpuclean.processes.families.interface import Family
from pytest_gpuclean.processes.families.tensorboard import is_data_server
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.live_objects import LiveObject, live_objects, shut_down
from pytest_gpuclean.processes.ports import ports_of
from pytest_gpuclean.processes.recognizer import Recognizer
from pytest_gpuclean.processes.stop import stop
from pytest_gpuclean.processes.trackers import without_ended_trackers
from pytest_gpuclean.processes.waiting import wait_for_ends

_SHUT_DOWN_SECONDS = 5.0
_AFTER_SHUT_DOWN_SECONDS = 0.1

LookAgain = Callable[[Iterable[OwnedProcess]], tuple[OwnedProcess, ...]]


class Ending:
    """Ends processes of the run that are due, whoever started them.

    Args:
        discovery: finds the run's processes.
        blame: tells who started each, and which go on; what could not be stopped is settled in it.
        recognizer: tells of which family each is.
        settle_seconds: the upper bound for stopping what is due at once.
        families: families of others, asked before our own.
    """

    def __init__(
        self,
        discovery: Discovery,
        blame: Blame,
        recognizer: Recognizer,
        *,
        settle_seconds: float,
        families: tuple[Family, ...],
    ) -> None:
        self._run = discovery.run
        self._discovery = discovery
        self._blame = blame
        self._recognizer = recognizer
        self._settle_seconds = settle_seconds
        self._families = families

    def leave(self, due: list[OwnedProcess]) -> list[LeftProcess]:
        """Stop nothing: tell what is due, and let it go on."""
        told = [self._left_running(process) for process in due]
        for process in due:
            self._blame.settle_tree(process.key)
        return told

    def stop(self, due: list[OwnedProcess], look_again: LookAgain) -> list[LeftProcess]:
        """Stop what is due, each in its own way.

        Args:
            due: what is to end.
            look_again: looks at processes that are known, and books what has come up meanwhile.
        """
        inside = self._pids_of_boards_inside(due)
        began = time.monotonic()
        shut = self._shut_their_own_way(due, look_again)
        targets = [process for process in due if process.key not in shut]
        names = {key: starter.name for key, starter in self._blame.starters.items()}
        told = run_apart(
            lambda: stop(
                targets,
                self._discovery,
                settle_seconds=max(0.1, self._settle_seconds - (time.monotonic() - began)),
                may_live=self._blame.may_live,
                started_by=lambda key: names.get(key, self._blame.test.name),
                families=self._families,
            )
        )
        told = [left for left in told if left.ended_by != "itself"]  # on its way out, or gone with its parent
        told = without_ended_trackers(self._run.procfs, told)
        self._settle(told, look_again(due))
        return [*shut.values(), *(self._name_board(left) if left.pid in inside else left for left in told)]

    def _shut_their_own_way(self, due: list[OwnedProcess], look_again: LookAgain) -> dict[ProcessKey, LeftProcess]:
        objects = [found for found in live_objects({process.pid for process in due}) if found.shut is not None]
        if not objects:
            return {}
        before = {process.key: self._left_running(process) for process in due if _stands_for(objects, process.pid)}
        begin = time.monotonic()
        shut_down(objects, min(_SHUT_DOWN_SECONDS, self._settle_seconds))
        del objects
        # An executor's workers are on their way out then, unless they are busy.
        on_their_way = [key.pid for key in before]
        wait_for_ends(self._run.procfs, on_their_way, min(_AFTER_SHUT_DOWN_SECONDS, self._settle_seconds))
        alive = {process.key for process in look_again(due) if not process.is_zombie}
        seconds = time.monotonic() - begin
        return {
            key: replace(left, ended_by="shut down", reason="", is_spared=False, seconds=seconds)
            for key, left in before.items()
            if key not in alive
        }

    def _settle(self, told: Iterable[LeftProcess], found: Iterable[OwnedProcess]) -> None:
        """Let what could not be stopped, or is left alone, be told once."""
        alive = {left.pid for left in told if left.is_alive}
        for process in found:
            if process.pid in alive:
                self._blame.settle_tree(process.key)

    def _left_running(self, process: OwnedProcess) -> LeftProcess:
        command, family = self._recognizer.recognize(process)
        started_by = self._blame.starters[process.key].name
        return spared(process.pid, command, family, reason="it was left running", started_by=started_by)

    def _pids_of_boards_inside(self, due: Iterable[OwnedProcess]) -> set[int]:
        """Find the data servers of TensorBoards that run in this very process (`program.TensorBoard().launch()`)."""
        children = (process.pid for process in due if process.parent_pid == self._run.pid)
        return {pid for pid in children if is_data_server(read_command(self._run.procfs, pid, self._run.pid))}

    def _name_board(self, left: LeftProcess) -> LeftProcess:
        found = ports_of(self._run.procfs, [self._run.pid])
        ports = () if isinstance(found, Unavailable) else found.get(self._run.pid, ())
        where = f" (this process listens on {', '.join(map(str, ports))})" if ports else ""
        note = f"its web server is a thread of the test run{where}, and ends with it"
        return replace(
            left, name="TensorBoard inside the test run", reason="; ".join(filter(None, [left.reason, note]))
        )


def _stands_for(objects: Iterable[LiveObject], pid: int) -> bool:
    return any(pid in found.pids for found in objects)
