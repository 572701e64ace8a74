"""The processes that a script has started since a moment, and how they are stopped."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from pytest_gpuclean.cards import CardWatch
from pytest_gpuclean.cleanup.garbage import collect_all
from pytest_gpuclean.memory.nvml import Nvml
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.apart import run_apart
from pytest_gpuclean.processes.command import label, read_command
from pytest_gpuclean.processes.discovery import Discovery, OwnedProcess
from pytest_gpuclean.processes.families import FAMILIES
from pytest_gpuclean.processes.families.interface import Command, Family, Kind, recognize
from pytest_gpuclean.processes.families.robots import ROBOTS
from pytest_gpuclean.processes.families.shapes import python_call
from pytest_gpuclean.processes.families.tensorboard import TENSORBOARD
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.ledger import Ledger, begin_run
from pytest_gpuclean.processes.ownership import Run
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.stop import stop
from pytest_gpuclean.processes.trackers import without_ended_trackers
from pytest_gpuclean.processes.watch import ProcessWatch

SETTLE_SECONDS = 10.0
"""The upper bound for stopping processes, as `--gpu-settle` has it."""
_MOST_WAITED_FOR = 8

Fits = Callable[[Command], bool]


def is_robot(command: Command) -> bool:
    """Tell whether a process is a ROS 2 launch, node, command or daemon, or Gazebo."""
    return any(family.recognizes(command) for family in ROBOTS)


def is_board(command: Command) -> bool:
    """Tell whether a process is a TensorBoard."""
    return TENSORBOARD.recognizes(command)


def is_script(command: Command, names: Iterable[str] = ()) -> bool:
    """Tell whether a process is a Python script (`python FILE.py`), and no server or tool that is known by its name.

    Args:
        command: the process.
        names: the file names that are meant; any by default.
    """
    call = python_call(command)
    names = tuple(names)
    # A fork of the script itself, such as a data loader's worker, has its very command line.
    if call is None or not call.script.endswith(".py") or command.is_fork_of_run:
        return False
    return call.script in names if names else recognize(FAMILIES, command) is None


class _Cards:
    """The cards, as they were before something was stopped.

    It knows nothing of who stops it: a cycle would wait for the garbage collector, which takes long where much is
    alive.
    """

    def __init__(self, procfs: Procfs) -> None:
        self._nvml = Nvml()
        self._procfs = procfs
        self._stopped: deque[tuple[Collection[int], CardWatch]] = deque(maxlen=_MOST_WAITED_FOR)

    def bytes_of(self, pids: Collection[int]) -> Mapping[int, int | None]:
        """Read the GPU memory of processes that are about to be stopped."""
        cards = CardWatch(self._nvml, self._procfs)
        self._stopped.append((pids, cards))
        return cards.bytes_of(pids)

    def settle(self, ended: Collection[int], limit_seconds: float) -> list[str]:
        """Wait until the memory of those that have ended is back; tell what is not."""
        found = [(pids, cards) for pids, cards in self._stopped if not set(ended).isdisjoint(pids)]
        for one in found:
            self._stopped.remove(one)
        return [line for _, cards in found for line in cards.settle(ended, limit_seconds)]


class OwnProcesses:
    """What this process has started since this was made, as far as it can be proved.

    Args:
        name: whose they are, as it is told.
        is_whole: whether every proof is wanted: orphans are adopted, and what a killed script left is known by a
            ledger. Else they are known by their line of parents and by the mark in their environment.
    """

    def __init__(self, name: str, *, is_whole: bool) -> None:
        ledger = None
        if is_whole:
            self.run, ledger = begin_run()
        else:
            self.run = Run(subreaper=False)
        self._ledger = ledger if isinstance(ledger, Ledger) else None
        self._discovery = Discovery(self.run)
        self._cards = _Cards(self.run.procfs)
        self._watch = ProcessWatch(
            self.run, settle_seconds=SETTLE_SECONDS, ledger=self._ledger, gpu_bytes_of=self._cards.bytes_of
        )
        self._watch.open(name)

    def stop_all(self) -> list[LeftProcess]:
        """Stop all of them, but for services that everybody shares and pools that a library keeps."""
        if self._is_other_process() or not self._discovery.everywhere():
            return []
        collect_all()  # data loaders end their workers by that
        return self._watch.finish()

    def stop_kind(self, fits: Fits, *, at_once: bool = False) -> list[LeftProcess]:
        """Stop those of a kind, with what is below them.

        Args:
            fits: tells them by their command lines.
            at_once: whether to kill them without asking them to end first.
        """
        if self._is_other_process():
            return []
        found = self._discovery.everywhere()
        commands = {
            process.key: read_command(self.run.procfs, process.pid, self.run.pid)
            for process in found
            if not process.is_zombie
        }
        targets = [process for process in found if process.key in commands and fits(commands[process.key])]
        if not targets:
            return []
        spared = {process.key for process in found} - _with_what_is_below(found, targets)
        killing = tuple(_killed(commands[target.key]) for target in targets) if at_once else ()
        return run_apart(lambda: self._stop(targets, spared, killing))

    def settle(self, left: Iterable[LeftProcess], limit_seconds: float) -> list[str]:
        """Wait until the GPU memory of processes is back that were stopped.

        Args:
            left: them.
            limit_seconds: the upper bound.

        Returns:
            What is not back, and who uses the card, in a sentence; none where all is back.
        """
        ended = {process.pid for process in left if process.ended_by}
        return self._cards.settle(ended, limit_seconds)

    def disown(self, pid: int) -> None:
        """Let a process go on, with what is below it.

        Raises:
            ValueError: where it is none of them.
        """
        self._watch.disown(pid)

    def end(self) -> None:
        """Take back what was changed in this process for its children."""
        self.run.end()
        if self._ledger is not None:
            self._ledger.close()

    def _stop(
        self, targets: list[OwnedProcess], spared: set[ProcessKey], families: tuple[Family, ...]
    ) -> list[LeftProcess]:
        gpu_bytes = self._cards.bytes_of([target.pid for target in targets])
        told = stop(
            targets,
            self._discovery,
            settle_seconds=SETTLE_SECONDS,
            may_live=lambda key: key in spared,
            families=families,
        )
        told = [replace(left, gpu_bytes=gpu_bytes.get(left.pid)) for left in told if left.ended_by != "itself"]
        return without_ended_trackers(self.run.procfs, told)

    def _is_other_process(self) -> bool:
        """Whether this is a fork of the script: what the script has started is none of its business."""
        return os.getpid() != self.run.pid


def _with_what_is_below(found: Iterable[OwnedProcess], targets: Iterable[OwnedProcess]) -> set[ProcessKey]:
    below = {target.pid: target.key for target in targets}
    is_growing = True
    while is_growing:
        news = {p.pid: p.key for p in found if p.parent_pid in below and p.pid not in below}
        below |= news
        is_growing = bool(news)
    return set(below.values())


def _killed(command: Command) -> Kind:
    return Kind(
        name=label(command, recognize(FAMILIES, command)),
        matches=lambda other: other.argv == command.argv,
        first_signal=getattr(signal, "SIGKILL", signal.SIGTERM),
    )
