"""Which of many leaked blocks are followed: a few of each sort, until what they explain is nearly all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice, zip_longest

_FEW = 16
_FIRST_ROUND = 8
_MOST_AT_ONCE = 48


class Representatives:
    """Chooses what to follow next, and keeps count of what is explained."""

    def __init__(self, sorts: Sequence[tuple[type, int]]) -> None:
        """Set it up.

        Args:
            sorts: of each block, the type of the object that stands on it and its size in bytes.
        """
        self._sizes = [size for _, size in sorts]
        self.total_bytes = sum(self._sizes)
        self.explained_bytes = 0
        self.followed: set[int] = set()
        self._explained = bytearray(len(sorts))
        self.left = len(sorts)
        self._round = _FEW if len(sorts) <= _FEW else _FIRST_ROUND
        by_sort: dict[tuple[int, int], list[int]] = {}
        for index, (kind, size) in enumerate(sorts):
            by_sort.setdefault((id(kind), size), []).append(index)
        ranked = sorted(by_sort.values(), key=lambda members: -self._sizes[members[0]] * len(members))
        self._waiting = [_from_both_ends(members) for members in ranked]

    def next(self) -> list[int]:
        """Choose some of those that nobody is known to hold, from the sorts that weigh most, of each in turn."""
        self._waiting = [members for members in map(self._still, self._waiting) if members]
        turns = zip_longest(*self._waiting[: self._round])
        chosen = list(islice((index for index in chain.from_iterable(turns) if index is not None), self._round))
        self.followed |= {*chosen}
        self._round = min(2 * self._round, _MOST_AT_ONCE)
        return sorted(chosen)

    def _still(self, members: list[int]) -> list[int]:
        return [index for index in members if not self._explained[index]]

    def knows(self, index: int) -> bool:
        """Tell whether somebody is known to hold one."""
        return bool(self._explained[index])

    def unexplained(self) -> list[int]:
        """List those that nobody is known to hold."""
        return [index for index, is_explained in enumerate(self._explained) if not is_explained]

    def explain(self, indexes: Iterable[int]) -> None:
        """Take note of what somebody is known to hold."""
        for index in indexes:
            if not self._explained[index]:
                self._explained[index] = 1
                self.explained_bytes += self._sizes[index]
                self.left -= 1

    def size_bytes(self, indexes: Iterable[int]) -> int:
        """Sum the sizes of some."""
        return sum(self._sizes[index] for index in indexes)


def _from_both_ends(members: list[int]) -> list[int]:
    """Order a sort so that its first, last, second and last but one come first: they may differ in who holds them."""
    half = (len(members) + 1) // 2
    pairs = zip_longest(members[:half], reversed(members[half:]))
    return [index for index in chain.from_iterable(pairs) if index is not None]
