"""How the time is spent: back from a few, forward for all, then back from more."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from pytest_gpuclean.leaks import chains, orphans
from pytest_gpuclean.leaks.booking import Booking, Counting
from pytest_gpuclean.leaks.forward import Forward
from pytest_gpuclean.leaks.landmarks import Start
from pytest_gpuclean.leaks.representatives import Representatives
from pytest_gpuclean.leaks.roots import Roots
from pytest_gpuclean.leaks.search import Trail
from pytest_gpuclean.leaks.untracked import Untracked
from pytest_gpuclean.model.leaks import Holder

_ENOUGH = 0.95
"""Of the bytes: who holds the rest is not looked for."""
_LEVELS_FOR_A_SECOND = 10
_MANY = 64
"""Of that many targets most are found forward, or not at all: back leads the way from a few only."""
_SHARE_FORWARD_FIRST = 0.2
_SHARE_BACK = 0.5
_SHARE_FORWARD = 0.5
_SHARE_UNTRACKED = 0.8
"""Of the time that is left."""


class Block(Protocol):
    """A block of memory that leaked."""

    @property
    def values(self) -> tuple[Any, ...]: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def suffix(self) -> str: ...
    @property
    def instead(self) -> Block | None: ...


class Finder:
    """One search for who holds some leaked blocks."""

    def __init__(
        self,
        targets: Sequence[Block],
        known: Mapping[int, str],
        own: set[int],
        reached_from: Callable[[Any], Collection[int]],
        deadline: float,
    ) -> None:
        self._targets = list(targets)
        self._deadline = deadline
        self._own = own | {id(self._targets)}
        for target in targets:
            if target.instead is not None:
                self._own |= {id(target.instead), id(target.instead.values)}
        self._roots = Roots(known)
        self._untracked = Untracked(self._roots.running, deadline)
        self._forward = Forward(self._roots)
        self._booking = Booking(reached_from)
        self._choice = Representatives([(type(target.values[0]), target.size_bytes) for target in targets])

    def find(self) -> None:
        """Search until nearly all is explained or the time is over."""
        while not self._choice.followed or self._choice.explained_bytes < _ENOUGH * self._choice.total_bytes:
            chosen = [] if self._is_late() else self._choice.next()
            if not chosen:
                return
            self._follow(chosen)

    def holders(self) -> tuple[Holder, ...]:
        """List who was found."""
        return self._booking.holders(self._choice.size_bytes)

    def cut(self) -> str:
        """Say what was not followed."""
        if self._choice.left and self._is_late():
            total = len(self._targets)
            return f"{total - self._choice.left:,} of {total:,} followed"
        return ""

    def _follow(self, chosen: list[int]) -> None:
        self._look_forward(_SHARE_FORWARD if len(self._targets) > _MANY else _SHARE_FORWARD_FIRST)
        trail = self._climb(chosen, _SHARE_BACK, None)
        lost = self._book_trail(trail, chosen)
        if lost:
            self._look_forward(_SHARE_FORWARD)
            lost = [number for number in lost if not self._meet(trail, number, chosen[number])]
        if lost and trail.has_untracked and not self._is_late():
            chosen = [chosen[number] for number in lost]
            trail = self._climb(chosen, _SHARE_UNTRACKED, self._untracked)
            lost = self._book_trail(trail, chosen)
        is_sure = not trail.has_untracked or self._untracked.is_done
        others = [number for number in lost if self._take_other(chosen[number])]
        if others:
            self._follow([chosen[number] for number in others])
        for number in sorted({*lost} - {*others}):
            path, start = orphans.describe(trail, number, self._roots, is_sure=is_sure)
            self._book(path, start, [chosen[number]])

    def _take_other(self, index: int) -> bool:
        """Look for what leads to a target instead of for what stands on it; tell whether there is such a thing."""
        other = self._targets[index].instead
        if other is None or self._is_late():
            return False
        self._targets[index] = other
        return True

    def _climb(self, chosen: list[int], share: float, untracked: Untracked | None) -> Trail:
        starts = [self._targets[index].values for index in chosen]
        for index in chosen:
            self._own |= {id(self._targets[index]), id(self._targets[index].values)}
        self._own |= {id(starts), *self._forward.own(), *self._untracked.own()}
        trail = Trail(self._roots, self._own, self._until(share), untracked)
        # A holder is known: whether there is a second one is worth no more than this.
        trail.climb(starts, _LEVELS_FOR_A_SECOND if all(map(self._choice.knows, chosen)) else None)
        return trail

    def _book_trail(self, trail: Trail, chosen: list[int]) -> list[int]:
        """Book the ways that a search back has found, and list the numbers of those to that there is none."""
        held: set[int] = set()
        ways: set[tuple[int, ...]] = set()
        for number, path in trail.paths():
            held.add(number)
            # To a neighbour in one container the way is the same, and naming it costs a look at the whole container.
            way = tuple(map(id, path[:-1] if chains.is_in_container(path) else path))
            if way not in ways and not (ways and self._is_late()):
                ways.add(way)
                self._book(path, self._roots.start(path), [chosen[number]])
            self._choice.explain([chosen[number]])
        return [number for number, index in enumerate(chosen) if number not in held and not self._choice.knows(index)]

    def _look_forward(self, share: float) -> None:
        """Walk on from what the user's modules hold, and book what of all targets is found there."""
        if self._forward.is_done or not self._choice.left:
            return
        wanted: set[int] = set()
        for index in self._choice.unexplained():
            wanted.update(map(id, self._targets[index].values))
        self._forward.run(wanted, self._own, self._until(share))
        found: dict[int, tuple[int, list[int]]] = {}
        for index in self._choice.unexplained():
            at = self._forward.find(self._targets[index].values)
            if at is not None:
                found.setdefault(self._forward.top_of(at), (at, []))[1].append(index)
        for at, indexes in sorted(found.values(), key=lambda each: -self._choice.size_bytes(each[1])):
            if self._is_late():
                return
            path = self._forward.way_to(at)
            self._book(path, self._roots.start(path), indexes, are_all=self._forward.has_all)

    def _meet(self, trail: Trail, number: int, index: int) -> bool:
        """Book a way on which the search back from a target and the one forward meet; tell whether there is one."""
        if self._choice.knows(index):
            return True
        for way in trail.ways_to(number):
            at = self._forward.find(way[:1])
            if at is not None:
                path = [*self._forward.way_to(at), *way[1:]]
                self._book(path, self._roots.start(path), [index])
                return True
        return False

    def _book(self, path: Sequence[Any], start: Start, indexes: list[int], *, are_all: bool = False) -> None:
        counting = Counting.ALL if are_all else Counting.UNKNOWN if self._is_late() else Counting.MORE
        suffix = self._targets[indexes[0]].suffix
        self._choice.explain(self._booking.book(path, start, suffix, indexes, counting))

    def _is_late(self) -> bool:
        return time.thread_time() > self._deadline

    def _until(self, share: float) -> float:
        now = time.thread_time()
        return now + share * (self._deadline - now)
