"""The holders that were found, each with what it holds: equal ones are one, and the largest comes first."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_gpuclean.leaks import causes, chains
from pytest_gpuclean.leaks.landmarks import Start
from pytest_gpuclean.model.leaks import Holder

_MOST_ATTRIBUTES = 3
"""An object that holds leaked memory in more attributes than these is one holder."""
_CALLS = ".call_args_list"


@dataclass(slots=True)
class _Found:
    """A holder, while more of what it holds is being found."""

    chain: chains.Chain
    length: int
    reached: set[int]
    is_counted: bool = False
    """Whether this is known to be all."""


class Counting(enum.Enum):
    """What is known of how much a holder holds."""

    ALL = enum.auto()
    MORE = enum.auto()
    """It is to be found out."""
    UNKNOWN = enum.auto()
    """There is no time to find it out."""


class Booking:
    """Who was found to hold what."""

    def __init__(self, reached_from: Callable[[Any], Collection[int]]) -> None:
        """Set it up.

        Args:
            reached_from: gives the places of the targets that are reachable from a value through its data.
        """
        self._reached_from = reached_from
        self._found: dict[str, _Found] = {}
        self._reach: dict[int, frozenset[int]] = {}

    def book(
        self, path: Sequence[Any], start: Start, suffix: str, indexes: Collection[int], counting: Counting
    ) -> Collection[int]:
        """Take note of a chain, and return the places of the targets that its beginning reaches.

        Args:
            path: objects, each of which refers to the next one.
            start: how it begins.
            suffix: what follows the last one.
            indexes: the places of the targets that are known to be held by it.
            counting: whether these are all, or what else is reached is to be found out.
        """
        chain = chains.describe(path, start, suffix)
        found = self._found.get(chain.root) or self._found.get(chain.trunk)
        if found is None:
            found = self._found[chain.trunk] = _Found(chain, len(path), set())
        elif _tells_more(chain, found.chain):
            found.chain = chain
        found.reached.update(indexes)
        found.is_counted |= counting is Counting.ALL
        if counting is Counting.MORE and not found.is_counted:
            found.reached |= self._reachable(path[chain.anchor])
        self._merge(chain.root)
        return found.reached

    def _reachable(self, value: Any) -> frozenset[int]:
        if id(value) not in self._reach:
            self._reach[id(value)] = frozenset(self._reached_from(value))
        return self._reach[id(value)]

    def _merge(self, root: str) -> None:
        alike = [trunk for trunk, found in self._found.items() if found.chain.root == root and trunk != root]
        if len(alike) <= _MOST_ATTRIBUTES or not root:
            return
        found = [self._found.pop(trunk) for trunk in alike]
        first = min(found, key=lambda each: each.length)
        reached = set().union(*(each.reached for each in found))
        self._found[root] = _Found(first.chain, first.length, reached, any(each.is_counted for each in found))

    def holders(self, size_bytes: Callable[[Collection[int]], int]) -> tuple[Holder, ...]:
        """List them, the largest first.

        Args:
            size_bytes: sums the sizes of some targets.
        """
        found = sorted(
            ((size_bytes(each.reached), each) for each in self._found.values()),
            key=lambda pair: (-pair[0], not pair[1].chain.is_users, pair[1].length),
        )
        return tuple(
            Holder(
                kind=each.chain.kind,
                chain=each.chain.text,
                cause=causes.cause_of(each.chain.kind),
                held_bytes=held_bytes,
                count=len(each.reached),
                detail=each.chain.detail,
                is_known=each.chain.kind not in (causes.NO_HOLDER, causes.NOT_FOLLOWED),
            )
            for held_bytes, each in found
        )


def _tells_more(chain: chains.Chain, than: chains.Chain) -> bool:
    """Tell whether a chain of one holder is better than another: a mock's last call is in the list of all, too."""
    return chain.kind == causes.MOCK and _CALLS in chain.text and _CALLS not in than.text
