"""Which memory of this process is mapped from files: page cache, none of its own. Linux; elsewhere nothing is seen."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from pytest_gpuclean.memory.shared_memory import is_shared

_MAPS = "/proc/self/maps"


class MappedFiles:
    """Stretches of addresses behind which there are files.

    Args:
        maps: lines as of `/proc/self/maps`, in its order.
    """

    def __init__(self, maps: Iterable[str]) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        for line in maps:
            fields = line.rstrip("\n").split(maxsplit=5)
            # Devices map memory of their own, and memory that is shared has a name there too.
            if len(fields) < 6 or not fields[5].startswith("/") or fields[5].startswith(("/dev/", "/memfd:")):
                continue
            begin, _, end = fields[0].partition("-")
            if not is_shared(fields[5]):
                self._begins.append(int(begin, 16))
                self._ends.append(int(end, 16))

    def __contains__(self, address: int) -> bool:
        at = bisect_right(self._begins, address) - 1
        return at >= 0 and address < self._ends[at]


def mapped_files() -> MappedFiles:
    """Read what is mapped now."""
    try:
        with open(_MAPS, encoding="utf-8", errors="surrogateescape") as file:
            return MappedFiles(file)
    except OSError:
        return MappedFiles(())
