"""Raw reads of /proc. Every one copes with a process that is gone, and with no permission: both give None."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

_CHUNK_BYTES = 65536
_HALF_A_PAGE_BYTES = 2048
_PF_EXITING = 0x4
_LONGEST_EXEC_SECONDS = 0.03
_EXEC_PAUSE_SECONDS = 0.0002


class Stat(NamedTuple):
    """One process at one moment, as /proc/PID/stat has it."""

    pid: int
    name: str
    """At most 15 characters, and the process may write there what it likes: a label."""
    state: str
    """`R`, `S`, `D` (not to be interrupted), `T` (stopped), `Z` (main thread has ended) and the like."""
    parent_pid: int
    session_id: int
    threads: int
    start_ticks: int
    """Clock ticks from the system's start; with the pid it tells a process from a later one of the same number."""


class Uids(NamedTuple):
    """As whom a process runs."""

    real: int
    effective: int


class Signals(NamedTuple):
    """What a process does with signals, a bit each: signal N is bit N - 1."""

    ignored: int
    caught: int

    def ignores(self, number: int) -> bool:
        """Tell whether it ignores a signal."""
        return bool(self.ignored >> (number - 1) & 1)


class Procfs:
    """The process file system.

    Args:
        root: where it is mounted; tests hand in a folder of their own.
    """

    def __init__(self, root: str = "/proc") -> None:
        self.root = root

    def shows(self, pid: int) -> bool:
        """Tell whether this is the /proc of the namespace in which `pid`, the caller's own, counts.

        After `unshare --pid` without a fresh mount, /proc still shows the numbers of the namespace outside: to
        signal one of those would hit somebody else.
        """
        if self._link("self") != str(pid):
            return False
        # One number for each namespace from this /proc's down to the process's own: one alone where they are the same.
        return len(self._status_field(pid, b"NSpid:")) <= 1

    def pids(self) -> list[int]:
        """List every process that can be seen."""
        try:
            names = os.listdir(self.root)
        except OSError:
            return []
        return [int(name) for name in names if name.isdecimal()]

    def stat(self, pid: int) -> Stat | None:
        """Read identity, parent and state."""
        data = self._read(f"{pid}/stat")
        if not data:
            return None
        # The name may hold spaces, parentheses and line ends: it ends at the last parenthesis.
        head, _, tail = data.rpartition(b")")
        fields = tail.split(None, 20)
        if len(fields) < 20:
            return None
        name = head.partition(b"(")[2].decode(errors="replace")
        return Stat(
            pid,
            name,
            fields[0].decode(),
            int(fields[1]),
            int(fields[3]),
            int(fields[17]),
            int(fields[19]),
        )

    def is_ending(self, pid: int) -> bool:
        """Tell whether a process has ended or is being taken to pieces; not one whose main thread alone has ended.

        It still shows as running for a moment then, but not in which control group it was (cgroup v1).
        """
        data = self._read(f"{pid}/stat")
        fields = data.rpartition(b")")[2].split(None, 20) if data else []
        return len(fields) < 20 or (int(fields[17]) <= 1 and bool(int(fields[6]) & _PF_EXITING))

    def start_ticks(self, pid: int) -> int | None:
        """Read when a process started, and nothing else: two thirds of what the whole costs."""
        data = self._read(f"{pid}/stat")
        fields = data[data.rfind(b")") + 1 :].split(None, 20) if data else []
        return int(fields[19]) if len(fields) > 19 else None

    def image(self, pid: int) -> tuple[int, ...]:
        """Read where the program lies in memory: code, stack, arguments and environment.

        A fork has the addresses of its parent, also after one of them has changed its title; a program that was
        executed has others, as the kernel picks them at random. Empty where they are hidden.
        """
        data = self._read(f"{pid}/stat")
        fields = data.rpartition(b")")[2].split() if data else []
        # Counted from the state, which is the third field of stat(5).
        found = tuple(int(fields[number - 3]) for number in (26, 28, 48, 50)) if len(fields) >= 48 else ()
        return found if all(found) else ()

    def uids(self, pid: int) -> Uids | None:
        """Read the real and the effective user."""
        values = self._status_field(pid, b"Uid:")
        return Uids(int(values[0]), int(values[1])) if len(values) >= 2 else None

    def signals(self, pid: int) -> Signals | None:
        """Read which signals are ignored and which are caught."""
        data = self._read(f"{pid}/status")
        ignored, caught = (_field(data, name) for name in (b"SigIgn:", b"SigCgt:"))
        return Signals(int(ignored[0], 16), int(caught[0], 16)) if ignored and caught else None

    def environ(self, pid: int) -> bytes | None:
        """Read the environment as it was when the process was last executed: `NAME=value` parts, ended by NUL."""
        return self._read(f"{pid}/environ")

    def environ_value(self, pid: int, name: str) -> str | None:
        """Read one variable of that environment."""
        return value_in(self.environ(pid), name)

    def argv(self, pid: int) -> tuple[str, ...] | None:
        """Read the command line; empty for a zombie and for a thread of the kernel."""
        data = self._read(f"{pid}/cmdline")
        if data is None:
            return None
        parts = data.rstrip(b"\0").split(b"\0") if data.strip(b"\0") else []
        return tuple(part.decode(errors="surrogateescape") for part in parts)

    def wait_for_exec(self, pid: int) -> None:
        """Wait, some milliseconds at most, until a process that is just being executed has its command line.

        For some microseconds it has none, nor an environment; `subprocess.Popen` returns as early as that.
        """
        end = time.monotonic() + _LONGEST_EXEC_SECONDS
        while self.argv(pid) == () and time.monotonic() < end:
            stat = self.stat(pid)
            if stat is None or stat.state in "ZX":
                return
            time.sleep(_EXEC_PAUSE_SECONDS)

    def executable(self, pid: int) -> str | None:
        """Read the path of the program; it ends in ` (deleted)` where the file is gone."""
        return self._link(f"{pid}/exe")

    def pid_namespace(self, pid: int) -> str | None:
        """Read the namespace of its process numbers, such as `pid:[4026531836]`."""
        return self._link(f"{pid}/ns/pid")

    def net_namespace(self, pid: int) -> str | None:
        """Read the namespace of its ports."""
        return self._link(f"{pid}/ns/net")

    def terminal(self, pid: int) -> int | None:
        """Read the number of the controlling terminal; 0 where there is none."""
        data = self._read(f"{pid}/stat")
        fields = data.rpartition(b")")[2].split() if data else []
        return int(fields[4]) if len(fields) > 4 else None

    def cgroup(self, pid: int) -> str | None:
        """Read the control groups, a line each: what a service manager starts has one of its own."""
        data = self._read(f"{pid}/cgroup")
        return None if data is None else data.decode(errors="surrogateescape")

    def boot_id(self) -> str:
        """Read the identity of this start of the system; empty where it is hidden."""
        return (self._read("sys/kernel/random/boot_id") or b"").decode().strip()

    def thread_ids(self, pid: int) -> list[int]:
        """List the threads of a process."""
        try:
            return [int(name) for name in os.listdir(f"{self.root}/{pid}/task")]
        except OSError:
            return []

    def thread_states(self, pid: int) -> str:
        """Read the state of each thread: a letter each, `S` for one that sleeps; empty where there is none."""
        stats = [self._read(f"{pid}/task/{thread_id}/stat") for thread_id in self.thread_ids(pid)]
        return "".join(stat.rpartition(b") ")[2][:1].decode() for stat in stats if stat)

    def children(self, pid: int, threads: int = 0) -> list[int] | None:
        """List the direct children; None where it cannot be told.

        The list may lack one where some of them end meanwhile: what has to be complete is read more than once.

        Args:
            pid: the parent.
            threads: how many threads it has where that is known; 1 saves the listing of them.
        """
        thread_ids = [pid] if threads == 1 else self.thread_ids(pid)
        found: list[int] = []
        readable = False
        for thread_id in thread_ids:
            # Each thread has a list of its own; one read is cut off at a page, 700 of 920 children.
            data = self._read_to_end(f"{pid}/task/{thread_id}/children")
            if data is not None:
                readable = True
                found += map(int, data.split())
        return found if readable else None

    def descriptors(self, pid: int) -> Iterator[tuple[int, str]]:
        """Give each open descriptor of a process with what it leads to, such as `socket:[1234]`."""
        try:
            numbers = os.listdir(f"{self.root}/{pid}/fd")
        except OSError:
            return
        for number in numbers:
            link = self._link(f"{pid}/fd/{number}")
            if link is not None:
                yield int(number), link

    def file_of(self, pid: int, descriptor: int) -> tuple[int, int] | None:
        """Read device and inode of the file behind a descriptor."""
        try:
            found = os.stat(f"{self.root}/{pid}/fd/{descriptor}")
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def flags_of(self, pid: int, descriptor: int) -> int | None:
        """Read how a descriptor was opened: the flags of open(2), with O_CLOEXEC."""
        values = _field(self._read(f"{pid}/fdinfo/{descriptor}"), b"flags:")
        return int(values[0], 8) if values else None

    def listeners(self, pid: int) -> list[tuple[int, int]] | None:
        """List port and inode of each TCP socket that listens in the net namespace of a process."""
        tables = [self._read_to_end(f"{pid}/net/{name}") for name in ("tcp", "tcp6")]
        if tables[0] is None and tables[1] is None:
            return None
        return [row for table in tables if table for row in _listening(table)]

    def _status_field(self, pid: int, name: bytes) -> list[bytes]:
        return _field(self._read(f"{pid}/status"), name)

    def _read_to_end(self, path: str) -> bytes | None:
        """Read a list that the kernel gives a page at a time: what is shorter by far is all of it."""
        return self._read(path, whole_below_bytes=_HALF_A_PAGE_BYTES)

    def _read(self, path: str, whole_below_bytes: int = _CHUNK_BYTES) -> bytes | None:
        """Read a file; a first read that gives less than so many bytes is the last one."""
        try:
            descriptor = os.open(f"{self.root}/{path}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            data = os.read(descriptor, _CHUNK_BYTES)
            return data if len(data) < whole_below_bytes else data + _rest(descriptor)
        except OSError:  # ESRCH: it ended between open and read
            return None
        finally:
            os.close(descriptor)

    def _link(self, path: str) -> str | None:
        try:
            return os.readlink(f"{self.root}/{path}")
        except OSError:
            return None


def value_in(environ: bytes | None, name: str) -> str | None:
    """Find one variable in the bytes of an environment.

    Args:
        environ: as `Procfs.environ` gives it.
        name: of the variable.
    """
    start = name.encode() + b"="
    if environ is None or start not in environ:
        return None
    for part in environ.split(b"\0"):
        if part.startswith(start):
            return part[len(start) :].decode(errors="surrogateescape")
    return None


def _rest(descriptor: int) -> bytes:
    parts = []
    while data := os.read(descriptor, _CHUNK_BYTES):
        parts.append(data)
    return b"".join(parts)


def _field(data: bytes | None, name: bytes) -> list[bytes]:
    for line in (data or b"").splitlines():
        if line.startswith(name):
            return line[len(name) :].split()
    return []


def _listening(table: bytes) -> Iterator[tuple[int, int]]:
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == b"0A":
            yield int(fields[1].rpartition(b":")[2], 16), int(fields[9])
