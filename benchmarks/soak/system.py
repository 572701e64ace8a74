"""What the system says of a process, of what runs, and of what lies about."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROC = Path("/proc")
SHARED_MEMORY = Path("/dev/shm")


def give_back_free() -> None:
    """Let the C library give back what it keeps for later: a walk over a large heap leaves it hundreds of megabytes."""
    with contextlib.suppress(OSError, AttributeError):  # musl has no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def rss_bytes() -> int:
    """Say how much memory this process has."""
    return int((PROC / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    """Count the open files of this process."""
    return len(os.listdir("/proc/self/fd")) - 1  # the listing has one open


def descriptors_that(fits: Callable[[str], bool]) -> list[str]:
    """List what this process has open, by what it points to."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if fits(target):
                found.append(target)
    return found


def threads() -> int:
    """Count the threads of this process, also those that Python knows nothing of."""
    return len(os.listdir("/proc/self/task"))


def children() -> list[int]:
    """List the children of this process, zombies included."""
    found: list[int] = []
    for task in (PROC / "self/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def bearing(mark: str) -> Iterator[int]:
    """Find the processes that bear a mark, in their environment or on their command line."""
    needle = mark.encode()
    for folder in PROC.iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                if any(needle in (folder / name).read_bytes() for name in ("environ", "cmdline")):
                    yield int(folder.name)


def described(pid: int) -> str:
    """Say what a process is."""
    with contextlib.suppress(OSError):
        command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        if command:  # else it has ended, and nobody has asked how
            return f"pid {pid} ({command[:100]})"
    with contextlib.suppress(OSError):
        name, _, rest = (PROC / str(pid) / "stat").read_text().partition("(")[2].rpartition(")")
        return f"pid {pid} ({name}, state {rest.split()[0]})"
    return f"pid {pid}"


def as_number(mark: str) -> str:
    """Write a mark as a number of seconds, next to nothing, for the command line of `sleep`."""
    return f"0.{''.join(str(ord(letter)) for letter in mark)}"


def left_bearing(mark: str, within_seconds: float) -> list[str]:
    """List the processes that still bear a mark after a while, as it is or as a number; end each by its own number."""
    until = time.monotonic() + within_seconds
    while (found := [*bearing(mark), *bearing(as_number(mark))]) and time.monotonic() < until:
        time.sleep(0.05)
    found = sorted({*found})
    told = [described(pid) for pid in found]
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return told


def files_below(folder: Path) -> set[str]:
    """List all files below a folder, and the folders in it that are empty."""
    found = set()
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if not path.is_dir() or not any(path.iterdir()):
                found.add(str(path.relative_to(folder)))
    return found


def shared_memory(mark: str) -> set[str]:
    """List what lies in shared memory under a mark; what others have there is none of ours."""
    return {path.name for path in SHARED_MEMORY.glob(f"*{mark}*")} if SHARED_MEMORY.is_dir() else set()
