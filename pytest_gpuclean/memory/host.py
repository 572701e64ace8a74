"""The process heap: a cheap figure that raises a doubt about host memory. The census judges."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.memory import HEAP, Reading

SLOW_READ_SECONDS = 5e-3
"""A heap that is badly fragmented takes up to 9 ms to read (1.4 us otherwise): then it is read by module."""
_SLOW_READS = 20
_SHARED_MAPS = ("/dev/shm/", "/memfd:", "/torch_")


class HostProbe:
    """Reads glibc's, macOS's or Windows' heap figures, and shared memory that is mapped beside them."""

    source = HEAP.source

    def __init__(self) -> None:
        self._slow_reads = 0
        self._shared = _SharedMemory()
        self._heap_info: Callable[[], Any] | None = None
        self._last: Reading | None = None

    @property
    def is_slow(self) -> bool:
        """Whether several reads in a row took longer than a test should pay for."""
        return self._slow_reads >= _SLOW_READS

    def read(self, slack_bytes: int = 0) -> Sequence[Reading | Unavailable]:
        """Give the one reading of the heap; the very same one again where it has not moved.

        Args:
            slack_bytes: by how much it may have moved all the same.
        """
        if self._heap_info is None:
            try:
                from psutil import heap_info
            except ImportError:
                return (Unavailable("heap", "psutil.heap_info() needs psutil 7.2 on glibc, macOS or Windows"),)
            self._heap_info = heap_info
        begin = time.perf_counter()
        try:
            heap = self._heap_info()
            if time.perf_counter() - begin > SLOW_READ_SECONDS and _takes_long(self._heap_info):
                self._slow_reads += 1
            elif self._slow_reads:
                self._slow_reads -= 1
        except Exception as error:
            return (Unavailable("heap", f"{type(error).__name__}: {error}"),)
        used = heap.heap_used + heap.mmap_used + self._shared.mapped_bytes()
        last = self._last
        if last is None or abs(used - last.allocated_bytes) > slack_bytes:
            last = Reading(device=HEAP.device, source=self.source, allocated_bytes=used, reserved_bytes=used)
            self._last = last
        return (last,)

    def reset_peak(self) -> None:
        """Do nothing: the heap keeps no peak."""


def _takes_long(read: Callable[[], Any]) -> bool:
    """Whether it is the heap that takes long to read: on a busy machine any read may, and this clock costs 3 us."""
    begin = time.thread_time()
    read()
    return time.thread_time() - begin > SLOW_READ_SECONDS


class _SharedMemory:
    """Shared memory mapped into this process, such as batches from DataLoader workers: no heap figure has it.

    The list of maps is long where torch is loaded (milliseconds), so it is read again only after the size of the
    address space has moved, less what is private and may be written to: heaps, and the stacks of threads.
    """

    _SLACK_BYTES = 256 * 1024
    _statm: int | None = None  # of the class: also one whose making has failed comes to its end
    _file: tuple[int, int] | None = None

    def __init__(self) -> None:
        self._owner_pid = 0
        self._page_bytes = 0
        self._space_bytes = 0
        self._mapped_bytes = 0
        self._open()

    def __del__(self) -> None:
        # A test may have closed all descriptors, and the number be somebody else's by now.
        if self._statm is not None and _file_behind(self._statm) == self._file:
            os.close(self._statm)
        self._statm = None

    def _open(self) -> None:
        self.__del__()
        self._statm, self._owner_pid = None, os.getpid()
        if sys.platform == "linux":
            try:
                self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
                self._file = _file_behind(self._statm)
                self._page_bytes = os.sysconf("SC_PAGE_SIZE")
            except OSError:
                pass

    def mapped_bytes(self) -> int:
        if self._owner_pid != os.getpid():  # a forked child: the open file still tells of its parent
            self._open()
        if self._statm is None:
            return 0
        try:
            fields = os.pread(self._statm, 128, 0).split()
            space = (int(fields[0]) - int(fields[5])) * self._page_bytes  # the size of all, less data and stacks
        except (OSError, ValueError, IndexError):
            return self._mapped_bytes
        if abs(space - self._space_bytes) > self._SLACK_BYTES:
            self._space_bytes = space
            self._mapped_bytes = _shared_map_bytes()
        return self._mapped_bytes


def _file_behind(descriptor: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _shared_map_bytes() -> int:
    total = 0
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                fields = line.split(None, 5)
                if len(fields) == 6 and fields[1][3] == "s" and fields[5].startswith(_SHARED_MAPS):
                    begin, _, end = fields[0].partition("-")
                    total += int(end, 16) - int(begin, 16)
    except OSError:
        return 0
    return total
