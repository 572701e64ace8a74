"""What else is left beside memory: threads, open files and sockets, shared memory. It informs and judges nothing."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from pytest_gpuclean.leaks import frames
from pytest_gpuclean.units import format_size, shorten

_LONGEST = 120
_MOST = 6
_SHARED = "/dev/shm/"
_MAPPED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) .* (/dev/shm/.+)$", re.MULTILINE)
_OWN = ("pidfd", "gpuclean")
"""In the targets of descriptors of our own: processes that are held, the ledger of the run."""


class Residue:
    """Knows what was open at the last mark, and tells what has come since and is still there."""

    def __init__(self, process: Path = Path("/proc/self")) -> None:
        """Set it up.

        Args:
            process: where the kernel shows this process; elsewhere than on Linux there is nothing to read.
        """
        self._process = process
        self._descriptors: dict[str, str] = {}
        self._mapped: frozenset[str] = frozenset()
        self._threads: frozenset[tuple[int, str]] = frozenset()

    def mark(self) -> None:
        """Take everything that is there now as known. It keeps text and numbers alone."""
        self._descriptors = dict(self._open())
        self._mapped = frozenset(name for name, _ in self._shared())
        self._threads = frozenset((identity, name) for identity, _, name in frames.thread_objects())

    def left(self) -> tuple[str, ...]:
        """Tell what has come since, at most six of a kind."""
        return (*_some(self._new_threads()), *_some(self._new_shared()), *_some(self._new_descriptors()))

    def _new_threads(self) -> Iterator[str]:
        tops: dict[int, FrameType | None] = dict(sys._current_frames())
        try:
            for identity, _, name in frames.thread_objects():
                if (identity, name) not in self._threads and tops.get(identity) is not None:
                    yield f"thread '{name}', now at {_standing(tops[identity])}"
        finally:
            tops.clear()  # it refers to this very frame

    def _new_shared(self) -> Iterator[str]:
        sizes: dict[str, int] = {}
        for name, size in self._shared():
            if name not in self._mapped:
                sizes[name] = sizes.get(name, 0) + size
        for name, size in sizes.items():
            yield f"shared memory {shorten(name, _LONGEST)} ({format_size(size)})"

    def _new_descriptors(self) -> Iterator[str]:
        for number, target in self._open():
            if self._descriptors.get(number) != target and not any(own in target for own in _OWN):
                words = _words_of(int(number), target)
                if words:
                    yield words

    def _open(self) -> Iterator[tuple[str, str]]:
        folder = self._process / "fd"
        with contextlib.suppress(OSError):
            for number in os.listdir(folder):
                with contextlib.suppress(OSError):  # the listing's own is closed by now
                    yield number, os.readlink(f"{folder}/{number}")

    def _shared(self) -> list[tuple[str, int]]:
        try:
            maps = (self._process / "maps").read_bytes()
        except OSError:
            return []
        return [
            (name.decode(errors="replace"), int(end, 16) - int(begin, 16)) for begin, end, name in _MAPPED.findall(maps)
        ]


def _standing(frame: FrameType | None) -> str:
    """Say where a thread stands: in the innermost function that is not Python's own."""
    inner = frame
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in sys.stdlib_module_names:
        frame = frame.f_back
    found = frame or inner
    return frames.standing_of(found) if found is not None else "its end"


def _words_of(number: int, target: str) -> str:
    kind = target.partition(":")[0]
    if kind == "socket":
        return _words_of_socket(number)
    if kind == "pipe":
        return "pipe"
    if kind == "anon_inode":
        return target.partition(":")[2].strip("[]")
    if target.startswith(_SHARED):
        return ""  # told with its size, where it is mapped
    return f"open file {shorten(target, _LONGEST)}"


def _words_of_socket(number: int) -> str:
    try:
        with socket.socket(fileno=os.dup(number)) as found:
            if found.family not in (socket.AF_INET, socket.AF_INET6):
                return "socket"
            host, port = found.getsockname()[:2]
            listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return f"socket {host}:{port}{', listening' if listens else ''}"
    except OSError:
        return ""  # closed meanwhile


def _some(lines: Iterable[str]) -> list[str]:
    found = list(lines)
    counted = {line: found.count(line) for line in found}
    told = [f"{count} x {line}" if count > 1 else line for line, count in counted.items()]
    return told if len(told) <= _MOST else [*told[:_MOST], f"and {len(told) - _MOST} more of the kind"]
