"""Which process is meant: its number is given to another one as soon as it has ended."""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import select
import signal
import sys
import time
from typing import NamedTuple, Protocol

from pytest_gpuclean.processes.procfs import Procfs

TICKS_PER_SECOND: int = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
"""Of the clock by which the starts of processes are counted."""
_DESCRIPTORS_TO_SPARE = 8


class ProcessKey(NamedTuple):
    """A process of this start of the system and of this namespace."""

    pid: int
    start_ticks: int


class Sent(enum.Enum):
    """What became of a signal."""

    SENT = "sent"
    GONE = "gone"
    DENIED = "denied"


class Pin(Protocol):
    """A process held on to."""

    key: ProcessKey
    descriptor: int | None
    """To wait for its end with `select.poll`; None where there is no such thing."""

    def is_same(self) -> bool:
        """Tell whether the number is still its own, as a running process or as a zombie.

        Whatever was read by its number since it was pinned was then its own.
        """

    def is_gone(self) -> bool:
        """Tell whether it has ended; a zombie has."""

    def send(self, number: int) -> Sent:
        """Send a signal to this process and to no other."""

    def reap(self) -> bool:
        """Take its exit status away, where it is a child of this process that has ended."""

    def close(self) -> None:
        """Let go of it."""


class PidfdPin:
    """A process pinned by its pidfd (Linux 5.3): the kernel keeps it apart from whatever has its number later."""

    def __init__(self, descriptor: int, key: ProcessKey) -> None:
        self.descriptor: int | None = descriptor
        self.key = key

    def is_same(self) -> bool:
        # Signal 0 finds a zombie too, and fails once its parent has taken the exit status and the number is free.
        return self.send(0) is not Sent.GONE

    def is_gone(self) -> bool:
        # Not by the state `Z`: a process whose main thread alone has ended shows it, and goes on working.
        if self.descriptor is None:
            return True
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, number: int) -> Sent:
        if self.descriptor is None:  # closed: its number may be another pidfd's by now
            return Sent.GONE
        try:
            signal.pidfd_send_signal(self.descriptor, number)
        except ProcessLookupError:
            return Sent.GONE
        except PermissionError:
            return Sent.DENIED
        return Sent.SENT

    def reap(self) -> bool:
        if self.descriptor is None:
            return False
        try:
            return os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED | os.WNOHANG) is not None
        except ChildProcessError:
            return False

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


class ChildPin:
    """A direct child where there is no pidfd (macOS, an old kernel): its number is its own until it is reaped.

    Nothing but direct children is ever signalled this way.
    """

    descriptor: int | None = None

    def __init__(self, pid: int, start_ticks: int | None) -> None:
        import psutil

        self._process = psutil.Process(pid)
        if start_ticks is None:
            start_ticks = round(self._process.create_time() * TICKS_PER_SECOND)
        self.key = ProcessKey(pid, start_ticks)

    def is_same(self) -> bool:
        import psutil

        try:
            return bool(self._process.is_running() and self._process.ppid() == os.getpid())
        except psutil.Error:
            return False

    def is_gone(self) -> bool:
        import psutil

        try:
            return not self.is_same() or bool(self._process.status() == psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return True

    def send(self, number: int) -> Sent:
        if not self.is_same():
            return Sent.GONE
        try:
            os.kill(self.key.pid, number)
        except ProcessLookupError:
            return Sent.GONE
        except PermissionError:
            return Sent.DENIED
        return Sent.SENT

    def reap(self) -> bool:
        """Leave it: whose child it was cannot be told here."""
        return False

    def close(self) -> None:
        """Do nothing: nothing is held open."""


class NoPin(NamedTuple):
    """A process that could not be pinned, and why. It is never signalled."""

    reason: str


def pin(procfs: Procfs, pid: int) -> Pin | NoPin | None:
    """Hold on to the process that has a number now.

    Args:
        procfs: where its start is read.
        pid: its number.

    Returns:
        None where there is no such process.
    """
    if not has_pidfd():
        return _pin_child(procfs, pid)
    try:
        descriptor = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):  # EINVAL: the number is a thread's
            return None
        return NoPin(f"its pidfd cannot be opened: {error.strerror}")
    if _is_among_the_last(descriptor):
        os.close(descriptor)
        return NoPin("its pidfd cannot be opened: too many open files")
    stat = procfs.stat(pid)
    pinned = PidfdPin(descriptor, ProcessKey(pid, stat.start_ticks if stat else -1))
    if stat is None or not pinned.is_same():
        pinned.close()
        return None
    return pinned


def _pin_child(procfs: Procfs, pid: int) -> Pin | NoPin | None:
    if sys.platform == "linux" and not procfs.shows(os.getpid()):
        return NoPin(f"{procfs.root} does not show this process")  # psutil would read somebody else's there
    try:
        stat = procfs.stat(pid)
        child = ChildPin(pid, stat.start_ticks if stat else None)
        if child.is_same():
            return child
    except Exception:  # psutil is missing, or the process has gone
        return None
    return NoPin("there is no pidfd here (Linux 5.3), and it is no direct child: it cannot be signalled safely")


def _is_among_the_last(descriptor: int) -> bool:
    """Tell whether next to no descriptors are left: reading the proofs needs some too."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit != resource.RLIM_INFINITY and descriptor >= limit - _DESCRIPTORS_TO_SPARE


def has_pidfd() -> bool:
    """Tell whether processes can be pinned by a pidfd here; a sandbox may forbid it on any kernel."""
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        return False
    try:
        descriptor = os.pidfd_open(os.getpid())
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    with contextlib.suppress(OSError):
        os.close(descriptor)
    return True


def ticks_now(*, seconds_ago: float = 0.0) -> int:
    """Read the clock by which the starts of processes are counted: psutil's where there is no /proc.

    Args:
        seconds_ago: what it showed so long before.
    """
    try:
        return int((time.clock_gettime(time.CLOCK_BOOTTIME) - seconds_ago) * TICKS_PER_SECOND)
    except (AttributeError, OSError, ValueError):
        return round((time.time() - seconds_ago) * TICKS_PER_SECOND)
