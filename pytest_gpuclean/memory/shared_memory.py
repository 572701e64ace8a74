"""Shared memory that this process has mapped or holds open, with its size. Linux; elsewhere nothing is seen."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import NamedTuple

_FOLDER = "/dev/shm/"
_SYSTEM_V = "/SYSV"
_SEMAPHORE = "/dev/shm/sem."
_DELETED = " (deleted)"
_MAPS = "/proc/self/maps"
_STATUS = "/proc/self/status"
_RESIDENT = re.compile(rb"^RssShmem:\s*(\d+) kB", re.MULTILINE)


class Segment(NamedTuple):
    """What tells a segment from any other: device and inode, also once its name is gone."""

    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Shared:
    """One segment of shared memory."""

    path: str
    """As it was called: its name may be taken away while it is in use."""
    size_bytes: int

    @property
    def is_semaphore(self) -> bool:
        """Whether it is a lock of multiprocessing, a few bytes."""
        return self.path.startswith(_SEMAPHORE)


def is_shared(path: str) -> bool:
    """Whether a file of this name is shared memory."""
    return path.startswith((_FOLDER, _SYSTEM_V))


def has_mapped_any() -> bool:
    """Whether this process uses shared memory at all; cheap, where the list of what it has mapped is long."""
    try:
        descriptor = os.open(_STATUS, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = _RESIDENT.search(os.read(descriptor, 8192))
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return found is None or int(found[1]) > 0


def mapped() -> dict[Segment, Shared]:
    """Find every segment that is mapped, by whatever it was mapped."""
    found: dict[Segment, Shared] = {}
    try:
        with open(_MAPS, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line for line in file if _FOLDER in line or _SYSTEM_V in line]
    except OSError:
        return {}
    for line in lines:
        fields = line.rstrip("\n").split(maxsplit=5)
        if len(fields) < 6 or not is_shared(fields[5]):
            continue
        begin, _, end = fields[0].partition("-")
        major, _, minor = fields[3].partition(":")
        segment = Segment(os.makedev(int(major, 16), int(minor, 16)), int(fields[4]))
        size = int(fields[2], 16) + int(end, 16) - int(begin, 16)  # several parts of it may be mapped
        before = found.get(segment)
        path = fields[5].removesuffix(_DELETED)
        found[segment] = Shared(path, max(size, before.size_bytes if before else 0))
    return found


def held_open(descriptor: int, path: str) -> tuple[Segment, Shared] | None:
    """Look at a segment by one of its descriptors; None where it is closed.

    Args:
        descriptor: of this process.
        path: what it is called.
    """
    try:
        about = os.fstat(descriptor)
    except OSError:
        return None
    return Segment(about.st_dev, about.st_ino), Shared(path.removesuffix(_DELETED), about.st_size)
