"""One process on its way out: pinned, with what was sent to it and until when it has time."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.command import command_line, label
from pytest_gpuclean.processes.discovery import OwnedProcess
from pytest_gpuclean.processes.families.interface import Command, Family
from pytest_gpuclean.processes.identity import Pin, Sent
from pytest_gpuclean.processes.procfs import Procfs

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has none: its SIGTERM is as hard
FREEZE: int | None = getattr(signal, "SIGSTOP", None)
CONTINUE: int | None = getattr(signal, "SIGCONT", None)
TERM_GRACE_SECONDS = 1.5
DEFAULT_GRACE_SECONDS = 2.0
_WAKING_SECONDS = 0.05
_WAKING_PAUSE_SECONDS = 0.00025
DEFAULT_FIRST_SIGNAL = signal.SIGINT


@dataclass(slots=True, kw_only=True)
class Target:
    """A process that is being stopped."""

    process: OwnedProcess
    pin: Pin
    command: Command
    family: Family | None
    is_new: bool
    """Whether it came while the others were being stopped."""
    is_stray: bool = False
    """Whether it came without a parent among them: the next link of a chain that hops from number to number."""
    ports: tuple[int, ...] = ()
    sent: list[signal.Signals] = field(default_factory=list)
    deadline: float = math.inf
    """When it is time for the next signal."""
    gone_at: float | None = None
    reason: str = ""
    """Why it cannot be stopped, or what is to be said about it."""
    is_given_up: bool = False
    is_frozen: bool = False
    shares_ports: bool = True
    """Whether its ports are those of this process's net namespace."""

    @property
    def is_waited_for(self) -> bool:
        """Whether it is alive and can still be expected to end."""
        return self.gone_at is None and not self.is_given_up

    @property
    def grace_seconds(self) -> float:
        """How long it may take to end in good order."""
        return self.family.grace_seconds if self.family else DEFAULT_GRACE_SECONDS

    def next_signal(self, ignores: Callable[[int], bool]) -> signal.Signals:
        """Say what comes next: the family's own signal, SIGTERM, SIGKILL; what it ignores is left out.

        Args:
            ignores: tells whether the process ignores a signal.
        """
        first = self.family.first_signal if self.family else DEFAULT_FIRST_SIGNAL
        for number in dict.fromkeys((first, signal.SIGTERM)):
            if number not in self.sent and KILL not in self.sent and not ignores(number):
                return number
        return KILL

    def freeze(self) -> None:
        """Hold it in place, so that it starts nothing while the others are looked for."""
        if FREEZE is not None and not self.is_frozen:
            self.is_frozen = True
            self.pin.send(FREEZE)

    def thaw(self) -> None:
        """Let it go on."""
        if CONTINUE is not None and self.is_frozen:
            self.is_frozen = False
            self.pin.send(CONTINUE)

    def send(self, procfs: Procfs, number: signal.Signals, now: float, longest_seconds: float) -> None:
        """Send a signal, and wake the process where it was stopped: it takes no signal before.

        Args:
            procfs: where its state is read.
            number: the signal.
            now: by the monotonic clock.
            longest_seconds: an upper bound for the time that it gets.
        """
        stat = procfs.stat(self.process.pid)
        is_stopped = number is not KILL and (self.is_frozen or (stat is not None and stat.state == "T"))
        if is_stopped and stat is not None and stat.threads > 1:
            self._wake_first(procfs)
            is_stopped = False
        result = self.pin.send(number)
        if is_stopped and CONTINUE is not None:
            self.pin.send(CONTINUE)
            self.is_frozen = False
        if result is Sent.DENIED:
            self.is_given_up = True
            self.reason = "there is no permission to signal it"
        elif result is Sent.SENT:
            grace = TERM_GRACE_SECONDS if self.sent else self.grace_seconds
            self.sent.append(number)
            self.deadline = math.inf if number is KILL else now + min(grace, longest_seconds)

    def _wake_first(self, procfs: Procfs) -> None:
        """Wake it, and let all its threads go back to where they were.

        A signal that comes while threads are stopped, or only just woken, is taken by any of them; Python's main
        thread then goes on sleeping, and 1 in 5 scripts with a pool took SIGINT for nothing (1 in 25 where only the
        main thread was waited for).
        """
        self.is_frozen = False
        if CONTINUE is not None:
            self.pin.send(CONTINUE)
        end = time.monotonic() + _WAKING_SECONDS
        while set(procfs.thread_states(self.process.pid)) - {"S"} and time.monotonic() < end:
            time.sleep(_WAKING_PAUSE_SECONDS)

    @property
    def ended_by(self) -> str:
        """What ended it, as it is told; empty while it lives."""
        if self.gone_at is None:
            return ""
        return self.sent[-1].name if self.sent else "itself"

    def why_alive(self, procfs: Procfs, waited_seconds: float) -> str:
        """Say why it still lives.

        Args:
            procfs: where its state is read.
            waited_seconds: how long it was waited for.
        """
        stat = procfs.stat(self.process.pid)
        if self.reason:
            uids = procfs.uids(self.process.pid)
            return f"{self.reason}: it runs as uid {uids.real}" if uids else self.reason
        if stat is not None and stat.state == "D":
            return "it is in uninterruptible sleep (D): the kernel ends it once its input or output is done"
        return f"it had not ended {waited_seconds:.1f} s after the first signal"

    def entry(self, procfs: Procfs, first_signal_at: float | None, started_by: str) -> LeftProcess:
        """Write down what became of it.

        Args:
            procfs: where its state is read.
            first_signal_at: when the first of all signals was sent, by the monotonic clock; None where none was.
            started_by: the test or fixture.
        """
        end = time.monotonic() if self.gone_at is None else self.gone_at
        seconds = max(0.0, end - (end if first_signal_at is None else first_signal_at))
        return LeftProcess(
            pid=self.process.pid,
            name=label(self.command, self.family),
            command=command_line(self.command),
            started_by=started_by,
            ended_by=self.ended_by,
            seconds=seconds,
            ports=self.ports,
            reason=self.why_alive(procfs, seconds) if self.gone_at is None else self.reason,
        )
