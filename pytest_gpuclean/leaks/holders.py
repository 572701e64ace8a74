"""Who holds it: what keeps leaked memory alive, ranked by how much of it is reached from each."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pytest_gpuclean.leaks import causes, chains
from pytest_gpuclean.leaks.roots import Roots
from pytest_gpuclean.leaks.search import Trail
from pytest_gpuclean.model import Holder

_FOLLOWED_AT_ONCE = 8
_ENOUGH = 0.95
"""Of the bytes: the rest is not looked for."""


@dataclass(frozen=True, slots=True)
class Target:
    """A block of memory that leaked."""

    values: tuple[Any, ...]
    """The Python objects that stand on it: a tensor, its views, a bare storage, an array and its base; at least one."""
    size_bytes: int
    suffix: str = ""
    """Where `values` only lead to it: `.grad`, ` -> saved by MulBackward0`. It ends the chain."""


class Holding(NamedTuple):
    """Who holds what leaked."""

    holders: tuple[Holder, ...]
    """The largest first."""
    cut: str
    """What was not followed, and why; empty where all was."""


def find_holders(
    targets: Sequence[Target],
    *,
    known: Mapping[int, str] = {},
    ours: Collection[int] = (),
    reached_from: Callable[[Any], Collection[int]],
    seconds: float = 1.0,
) -> Holding:
    """Find what keeps leaked memory alive, and name it.

    Args:
        targets: what leaked, the largest first.
        known: by the identity of an object, words for what only the caller knows: `fixture 'model' (module scope)`.
        ours: identities of objects of the caller that refer to targets and hold nothing.
        reached_from: gives the places of the targets that are reachable from a value through its data.
        seconds: the upper bound of what it takes.
    """
    was_enabled = gc.isenabled()
    gc.disable()  # what is allocated here would set off collections, which cost as much as the search
    try:
        return _Finder(targets, known, ours, reached_from, time.monotonic() + seconds).find()
    finally:
        if was_enabled:
            gc.enable()


@dataclass(slots=True)
class _Found:
    """A holder while more of what it holds is being found."""

    chain: chains.Chain
    reached: set[int]
    distance: int


class _Finder:
    def __init__(
        self,
        targets: Sequence[Target],
        known: Mapping[int, str],
        ours: Collection[int],
        reached_from: Callable[[Any], Collection[int]],
        deadline: float,
    ) -> None:
        self._targets = targets
        self._reached_from = reached_from
        self._deadline = deadline
        self._roots = Roots(known)
        self._own = {*ours, id(targets)}
        self._found: dict[str, _Found] = {}
        self._explained: set[int] = set()
        self._followed: set[int] = set()
        self._reach: dict[int, Collection[int]] = {}

    def find(self) -> Holding:
        total = sum(target.size_bytes for target in self._targets)
        explained_bytes = 0
        while explained_bytes < _ENOUGH * total or not self._followed:
            chosen = self._representatives()
            if not chosen or time.monotonic() > self._deadline:
                break
            self._follow(chosen)
            explained_bytes = sum(self._targets[index].size_bytes for index in self._explained)
        return Holding(self._holders(), self._cut())

    def _representatives(self) -> list[int]:
        """Choose what to follow next, of each sort one: the largest of what nobody is known to hold."""
        chosen: list[int] = []
        spare: list[int] = []
        sorts: set[tuple[int, int]] = set()
        for index, target in enumerate(self._targets):
            if index in self._explained or index in self._followed:
                continue
            sort = (id(type(target.values[0])), target.size_bytes)
            (spare if sort in sorts else chosen).append(index)
            sorts.add(sort)
            if len(chosen) == _FOLLOWED_AT_ONCE:
                break
        return (chosen + spare)[:_FOLLOWED_AT_ONCE]

    def _follow(self, chosen: list[int]) -> None:
        starts: list[Any] = []
        for index in chosen:
            target = self._targets[index]
            self._own |= {id(target), id(target.values)}
            starts += target.values
        self._own.add(id(starts))
        by_value: dict[int, list[int]] = {}  # one object may lead to several: a parameter, and its gradient
        for index in chosen:
            for value in self._targets[index].values:
                by_value.setdefault(id(value), []).append(index)
        trail = Trail(self._roots, self._own, self._deadline)
        trail.climb(starts)
        self._followed |= {*chosen}
        held: set[int] = set()
        for path in trail.paths():
            for index in by_value[id(path[-1])]:
                held.add(index)
                self._book(path, index)
        for index in chosen:
            if index not in held | self._explained:
                self._book_orphan(trail, index)

    def _book(self, path: list[Any], index: int) -> None:
        chain = chains.describe(path, self._roots, self._targets[index].suffix)
        found = self._found.get(chain.trunk)
        if found is None:
            found = self._found[chain.trunk] = _Found(chain, set(), len(path))
        found.reached.add(index)
        found.reached.update(self._reachable(path))
        self._explained |= found.reached

    def _reachable(self, path: list[Any]) -> Collection[int]:
        value = path[1]
        if id(value) not in self._reach:
            self._reach[id(value)] = frozenset(self._reached_from(value))
        return self._reach[id(value)]

    def _book_orphan(self, trail: Trail, index: int) -> None:
        kind = causes.NOT_FOLLOWED if trail.is_cut else causes.NO_HOLDER
        chain = chains.Chain(kind, "no Python object refers to it", "", True, kind)
        found = self._found.setdefault(kind, _Found(chain, set(), 0))
        found.reached.add(index)
        self._explained.add(index)

    def _holders(self) -> tuple[Holder, ...]:
        holders = [
            Holder(
                kind=found.chain.kind,
                chain=found.chain.text,
                cause=causes.cause_of(found.chain.kind),
                held_bytes=sum(self._targets[index].size_bytes for index in found.reached),
                count=len(found.reached),
                detail=found.chain.detail,
                is_known=found.chain.kind not in (causes.NO_HOLDER, causes.NOT_FOLLOWED),
            )
            for found in self._found.values()
        ]
        return tuple(sorted(holders, key=lambda holder: -holder.held_bytes))

    def _cut(self) -> str:
        left = len(self._targets) - len(self._explained)
        if not left or time.monotonic() <= self._deadline:
            return ""
        return f"{len(self._followed):,} of {len(self._targets):,} followed"
