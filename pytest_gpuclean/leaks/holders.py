"""Who holds it: what keeps leaked memory alive, ranked by how much of it is reached from each."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pytest_gpuclean.leaks import causes, chains, orphans, raw
from pytest_gpuclean.leaks.beyond import behind_frames
from pytest_gpuclean.leaks.forward import Forward
from pytest_gpuclean.leaks.landmarks import Start
from pytest_gpuclean.leaks.representatives import Representatives
from pytest_gpuclean.leaks.roots import Roots
from pytest_gpuclean.leaks.search import Trail
from pytest_gpuclean.leaks.untracked import Untracked
from pytest_gpuclean.model import Holder

_ENOUGH = 0.95
"""Of the bytes: the rest is not looked for."""
_SHARE_BACK = 0.6
"""Of the time that is left: the search back. The rest is for the search forward."""
_MOST_ATTRIBUTES = 3
"""An object that holds leaked memory in more attributes than these is one holder."""
_CALLS = ".call_args_list"


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
        seconds: the upper bound of what it takes, of this thread's own time: a busy machine cuts no search short.
    """
    was_enabled = gc.isenabled()
    gc.disable()  # what is allocated here would set off collections, which cost as much as the search
    try:
        return _Finder(targets, known, ours, reached_from, time.thread_time() + seconds).find()
    finally:
        if was_enabled:
            gc.enable()


@dataclass(slots=True)
class _Found:
    """A holder, while more of what it holds is being found."""

    chain: chains.Chain
    length: int
    reached: set[int]


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
        running = [value for _, value in self._roots.running.variables()]
        self._untracked = Untracked(running, deadline)
        self._own = {*ours, id(targets)}
        self._found: dict[str, _Found] = {}
        self._reach: dict[int, frozenset[int]] = {}
        self._choice = Representatives([(type(t.values[0]), t.size_bytes) for t in targets])

    def find(self) -> Holding:
        while self._choice.explained_bytes < _ENOUGH * self._choice.total_bytes or not self._choice.followed:
            chosen = self._choice.next()
            if not chosen or self._is_late():
                break
            self._follow(chosen)
        return Holding(self._holders(), self._cut())

    def _is_late(self) -> bool:
        return time.thread_time() > self._deadline

    def _follow(self, chosen: list[int]) -> None:
        starts = [self._targets[index].values for index in chosen]
        for index in chosen:
            self._own |= {id(self._targets[index]), id(self._targets[index].values)}
        self._own.add(id(starts))
        now = time.thread_time()
        trail = Trail(self._roots, self._untracked, self._own, now + _SHARE_BACK * (self._deadline - now))
        trail.climb(starts)
        places: dict[int, list[int]] = {}  # one object may lead to several: a parameter, and its gradient
        for index in chosen:
            for value in self._targets[index].values:
                places.setdefault(id(value), []).append(index)
        held: set[int] = set()
        for path in trail.paths():
            for index in places[id(path[-1])]:
                held.add(index)
                self._book(path, self._roots.start(path), index)
        if held != set(chosen):
            self._follow_forward(trail, places, held)
        self._book_orphans(trail, places, [index for index in chosen if index not in held])
        self._choice.explain(chosen)

    def _follow_forward(self, trail: Trail, places: Mapping[int, list[int]], held: set[int]) -> None:
        goals = trail.goals()
        for way in Forward(self._roots, self._deadline).search(goals, self._own):
            path = [*way[:-1], *trail.way_from(goals[id(way[-1])])]
            for index in places[id(path[-1])]:
                held.add(index)
                self._book(path, self._roots.start(path), index)
            if all(index in held for indexes in places.values() for index in indexes):
                return

    def _book_orphans(self, trail: Trail, places: Mapping[int, list[int]], orphaned: Iterable[int]) -> None:
        tops: dict[int, list[Any]] = {}
        for way in map(trail.way_from, trail.tops()):
            for index in places[id(way[-1])]:
                tops.setdefault(index, way)
        for index in orphaned:
            if self._choice.is_explained(index):  # its object is torch's alone, but a holder's graph leads to it
                continue
            path = tops.get(index) or trail.way_from(trail.farthest_above(self._targets[index].values))
            if index in tops:
                start = orphans.start_above(path, is_cycle=False)
            elif trail.is_cut:
                start = orphans.far_start(path, trail.levels)
            elif any(map(raw.is_class, path)):
                path = path[next(at for at, value in enumerate(path) if raw.is_class(value)) :]
                start = self._roots.of_class(path)
            else:
                path = path[orphans.nearest_instance(path) :]
                start = orphans.start_above(path, is_cycle=True)
            self._book(path, start, index)

    def _book(self, path: Sequence[Any], start: Start, index: int) -> None:
        chain = chains.describe(path, start, self._targets[index].suffix)
        found = self._found.get(chain.root) or self._found.get(chain.trunk)
        if found is None:
            found = self._found[chain.trunk] = _Found(chain, len(path), set())
        elif _tells_more(chain, found.chain):
            found.chain = chain
        found.reached |= {index, *self._reachable(path, chain.anchor, index)}
        self._merge(chain.root)
        self._choice.explain(found.reached)

    def _merge(self, root: str) -> None:
        alike = [trunk for trunk, found in self._found.items() if found.chain.root == root and trunk != root]
        if len(alike) <= _MOST_ATTRIBUTES or not root:
            return
        found = [self._found.pop(trunk) for trunk in alike]
        first = min(found, key=lambda each: each.length)
        self._found[root] = _Found(first.chain, first.length, set().union(*(each.reached for each in found)))

    def _reachable(self, path: Sequence[Any], anchor: int, index: int) -> frozenset[int]:
        value = path[anchor]
        if id(value) not in self._reach and not self._is_late():
            reached = frozenset(self._reached_from(value))
            if index not in reached:
                reached |= frozenset(self._reached_from(behind_frames(value, self._deadline)))
            self._reach[id(value)] = reached
        return self._reach.get(id(value), frozenset())

    def _holders(self) -> tuple[Holder, ...]:
        found = sorted(
            ((self._choice.size_bytes(each.reached), each) for each in self._found.values()),
            key=lambda pair: (-pair[0], not pair[1].chain.is_users, pair[1].length),
        )
        return tuple(
            Holder(
                kind=each.chain.kind,
                chain=each.chain.text,
                cause=causes.cause_of(each.chain.kind),
                held_bytes=size_bytes,
                count=len(each.reached),
                detail=each.chain.detail,
                is_known=each.chain.kind not in (causes.NO_HOLDER, causes.NOT_FOLLOWED),
            )
            for size_bytes, each in found
        )

    def _cut(self) -> str:
        if self._choice.left and self._is_late():
            return f"{len(self._choice.followed):,} of {len(self._targets):,} followed"
        return ""


def _tells_more(chain: chains.Chain, than: chains.Chain) -> bool:
    """Tell whether a chain of one holder is better than another: a mock's last call is in the list of all, too."""
    return chain.kind == causes.MOCK and _CALLS in chain.text and _CALLS not in than.text
