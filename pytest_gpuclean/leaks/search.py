"""The search back: from leaked objects over what refers to them to what a person knows."""

from __future__ import annotations

import gc
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pytest_gpuclean.leaks.roots import Roots

_WIDEST = 48
"""How many objects are followed at one level: a look at the whole heap costs 25 ms and 1 ms more for each of them."""
_MOST_BELOW = 8
_MOST_PATHS = 32
_MOST_STEPS = 2000


class Trail:
    """What was found on the way back from a few objects, and how it hangs together."""

    def __init__(self, roots: Roots, own: Collection[int], deadline: float) -> None:
        """Set it up.

        Args:
            roots: where it ends.
            own: identities of objects of the search and of its caller.
            deadline: on the monotonic clock.
        """
        self._roots = roots
        self._own = own
        self._deadline = deadline
        self.objects: list[Any] = []
        """Everything that was found, in the order of the distance."""
        self._below: list[list[int]] = []
        """For each of them the places of those that it refers to; nothing for the leaked objects themselves."""
        self._place: dict[int, int] = {}
        self._hits: list[tuple[Any, int]] = []
        self.is_cut = False
        """Whether the search ended before everything was followed."""

    def climb(self, starts: Sequence[Any]) -> None:
        """Search back from some objects until nothing is left to follow, or the time is over."""
        level = [self._add(start, None) for start in starts if id(start) not in self._place]
        while level:
            if time.monotonic() > self._deadline:
                self.is_cut = True
                return
            if len(level) > _WIDEST:
                self.is_cut = True
                level = level[:_WIDEST]
            level = self._level(level)

    def _level(self, level: list[int]) -> list[int]:
        following: list[int] = []
        # A tuple: of a list the call would make one, which since 3.13 is among the referrers.
        batch = tuple([self.objects[index] for index in level])
        own = {id(batch), id(self.objects), id(self._hits)}
        ids = {id(self.objects[index]): index for index in level}
        for index in level:
            self._hits += [(place, index) for place in self._roots.running.places(self.objects[index])]
        found = gc.get_referrers(*batch)
        for referrer in found:
            if id(referrer) in own or id(referrer) in self._own or self._roots.is_passed_over(referrer):
                continue
            below = dict.fromkeys(ids[each] for each in map(id, gc.get_referents(referrer)) if each in ids)
            if self._roots.is_root(referrer):
                self._hits += [(referrer, index) for index in below]
                continue
            known = self._place.get(id(referrer))
            for index in below:
                if known is None:
                    known = self._add(referrer, index)
                    following.append(known)
                elif index != known and 0 < len(self._below[known]) < _MOST_BELOW and index not in self._below[known]:
                    self._below[known].append(index)
        return following

    def _add(self, value: Any, below: int | None) -> int:
        self.objects.append(value)
        self._below.append([] if below is None else [below])
        self._place[id(value)] = len(self.objects) - 1
        return len(self.objects) - 1

    def paths(self) -> Iterator[list[Any]]:
        """Give the ways from each root to a leaked object, the shortest ones first."""
        hits = sorted(range(len(self._hits)), key=lambda number: self._hits[number][1])
        for number in hits:
            root, first = self._hits[number]
            for way in self._ways(first):
                yield [root, *(self.objects[index] for index in way)]

    def tops(self) -> list[int]:
        """List what nothing refers to, farthest first."""
        held = {index for below in self._below for index in below} | {first for _, first in self._hits}
        return [index for index in reversed(range(len(self.objects))) if index not in held]

    def way_from(self, index: int) -> list[Any]:
        """Give the shortest way from an object to a leaked one."""
        return [self.objects[place] for place in next(iter(self._ways(index)))]

    def _ways(self, first: int) -> Iterator[list[int]]:
        given, steps = 0, 0
        pending = [[first]]
        while pending and given < _MOST_PATHS and steps < _MOST_STEPS:
            steps += 1
            way = pending.pop()
            below = self._below[way[-1]]
            if not below:
                given += 1
                yield way
            pending += [[*way, index] for index in reversed(below) if index not in way]
