"""The search back: from leaked objects over what refers to them to what a person knows."""

from __future__ import annotations

import gc
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pytest_gpuclean.leaks.roots import Roots
from pytest_gpuclean.leaks.untracked import Untracked

_WIDEST = 48
"""How many objects are followed at one level: a look at the whole heap costs 25 ms and 1 ms more for each of them."""
_LEVELS_MORE = 6
"""How much farther than to the first root of each: there may be a second, and clearing one frees nothing."""
_MOST_BELOW = 8
_MOST_PATHS = 8
_MOST_STEPS = 2000


class Trail:
    """What was found on the way back from a few objects, and how it hangs together."""

    def __init__(self, roots: Roots, untracked: Untracked, own: Collection[int], deadline: float) -> None:
        """Set it up.

        Args:
            roots: where it ends.
            untracked: the containers that the collector does not show.
            own: identities of objects of the search and of its caller.
            deadline: on the clock of this thread (`time.thread_time`).
        """
        self._roots = roots
        self._untracked = untracked
        self._own = own
        self._deadline = deadline
        self.objects: list[Any] = []
        """Everything that was found, in the order of the distance."""
        self._below: list[list[int]] = []
        """For each of them the places of those that it refers to; nothing for the leaked objects themselves."""
        self._place: dict[int, int] = {}
        self._hits: list[tuple[Any, int]] = []
        self._looked_at = 0
        self._target_of: dict[int, int] = {}
        self._held: set[int] = set()
        self._in_itself: set[int] = set()
        self.levels = 0
        self.is_cut = False
        """Whether the search ended before everything was followed."""

    def climb(self, targets: Sequence[Sequence[Any]]) -> None:
        """Search back until nothing is left to follow, or the time is over.

        Args:
            targets: for each block of memory the objects that stand on it.
        """
        level: list[int] = []
        for number, values in enumerate(targets):
            for value in values:
                if id(value) not in self._place:
                    level.append(self._add(value, None))
                    self._target_of[level[-1]] = number
        self._hits += [(self.objects[index], index) for index in level if self._roots.is_root(self.objects[index])]
        lasting = 0
        while level:
            if time.thread_time() > self._deadline or lasting > _LEVELS_MORE:
                self.is_cut = True
                return
            if len(level) > _WIDEST:
                self.is_cut = True
                level = level[:_WIDEST]
            level = self._level(level)
            self.levels += 1
            lasting = lasting + 1 if self._count_held() == len(targets) else 0

    def _count_held(self) -> int:
        """Count the targets to that a way from some root was found."""
        for _, first in self._hits[self._looked_at :]:
            self._held.update(self._target_of[way[-1]] for way in self._ways(first))
        self._looked_at = len(self._hits)
        return len(self._held)

    def _level(self, level: list[int]) -> list[int]:
        following: list[int] = []
        # A tuple: of a list the call would make one, which since 3.13 is among the referrers.
        batch = tuple([self.objects[index] for index in level])
        own = {id(batch), id(self.objects), id(self._hits), *self._untracked.own()}
        ids = {id(self.objects[index]): index for index in level}
        for index in level:
            self._hits += [(place, index) for place in self._roots.running.places(self.objects[index])]
        for referrer in self._referrers(batch, ids):
            if id(referrer) in own or id(referrer) in self._own or self._roots.is_passed_over(referrer):
                continue
            below = dict.fromkeys(ids[each] for each in map(id, gc.get_referents(referrer)) if each in ids)
            if self._roots.is_root(referrer):
                self._hits += [(referrer, index) for index in below]
                continue
            following += self._book(referrer, below)
        return following

    def _referrers(self, batch: tuple[Any, ...], ids: Mapping[int, int]) -> list[Any]:
        found = gc.get_referrers(*batch)
        if not all(map(gc.is_tracked, batch)):
            known = {id(found), *map(id, found)}
            found += [container for container in self._untracked.referrers(ids) if id(container) not in known]
        return found

    def _book(self, referrer: Any, below: Collection[int]) -> list[int]:
        known = self._place.get(id(referrer))
        fresh: list[int] = []
        for index in below:
            if known is None:
                known = self._add(referrer, index)
                fresh.append(known)
            elif index == known:
                self._in_itself.add(known)
            elif 0 < len(self._below[known]) < _MOST_BELOW and index not in self._below[known]:
                self._below[known].append(index)
        return fresh

    def _add(self, value: Any, below: int | None) -> int:
        self.objects.append(value)
        self._below.append([] if below is None else [below])
        self._place[id(value)] = len(self.objects) - 1
        return len(self.objects) - 1

    def paths(self) -> Iterator[list[Any]]:
        """Give the ways from each root to a leaked object, the shortest ones first."""
        for root, first in sorted(self._distinct_hits(), key=lambda hit: hit[1]):
            for way in self._ways(first):
                path = [self.objects[index] for index in way]
                yield path if root is path[0] else [root, *path]

    def _distinct_hits(self) -> Iterator[tuple[Any, int]]:
        """Give each hit once; of several modules that know one object by a name, the one that defines it."""
        namespaces: dict[int, list[Any]] = {}
        for root, first in self._hits:
            if self._roots.is_namespace(root):
                namespaces.setdefault(first, []).append(root)
            else:
                yield root, first
        for first, found in namespaces.items():
            yield self._roots.modules.preferred(found, self.objects[first]), first

    def goals(self) -> dict[int, int]:
        """Give where everything that was found stands, by its identity."""
        return dict(self._place)

    def tops(self) -> list[int]:
        """List what nothing refers to, farthest first."""
        held = self._in_itself.union(*self._below, (first for _, first in self._hits))
        return [index for index in reversed(range(len(self.objects))) if index not in held]

    def farthest_above(self, values: Sequence[Any]) -> int:
        """Return the farthest object that leads to one of some leaked ones."""
        wanted = {id(value) for value in values}
        for index in reversed(range(len(self.objects))):
            if id(self.way_from(index)[-1]) in wanted:
                return index
        return 0

    def way_from(self, index: int) -> list[Any]:
        """Give the shortest way from an object to a leaked one."""
        way = [index]
        while self._below[way[-1]]:
            way.append(self._below[way[-1]][0])
        return [self.objects[place] for place in way]

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
