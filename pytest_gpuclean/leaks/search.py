"""The search back: from leaked objects over what refers to them to what a person knows."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import Any

from pytest_gpuclean.interpreter import referents_of
from pytest_gpuclean.leaks import raw
from pytest_gpuclean.leaks.roots import Roots
from pytest_gpuclean.leaks.untracked import Untracked

_OWN_PACKAGE = __name__.partition(".")[0]
_WIDEST = 48
"""How many objects are followed at one level: a look at the whole heap costs 25 ms and 1 ms more for each of them."""
_LEVELS_MORE = 6
"""How much farther than to the first root of each: there may be a second, and clearing one frees nothing."""
_MOST_BELOW = 8
_MOST_PATHS = 8
_MOST_STEPS = 2000


class Trail:
    """What was found on the way back from a few targets, and how it hangs together.

    The objects stand in one list, in the order of their distance: whatever else referred to them would be found too.
    """

    def __init__(self, roots: Roots, own: set[int], deadline: float, untracked: Untracked | None = None) -> None:
        """Set it up.

        Args:
            roots: where it ends.
            own: identities of objects of the search and of its caller; those of the trail are added.
            deadline: on the clock of this thread (`time.thread_time`).
            untracked: the containers that the collector does not show, where these are looked at.
        """
        self._roots = roots
        self._own = own
        self._deadline = deadline
        self._untracked = untracked
        self._objects: list[Any] = []
        self._below: list[list[int]] = []
        """For each of them the places of those that it refers to; nothing for what stands on the targets."""
        self._above: list[list[int]] = []
        """For each of them the places of those that refer to it, but for roots."""
        self._starts: list[list[int]] = []
        """For each target the places of what stands on it."""
        self._target_of: dict[int, int] = {}
        self._place: dict[int, int] = {}
        self._hits: list[tuple[Any, int]] = []
        self._looked_at = 0
        self._held: set[int] = set()
        self._in_itself: set[int] = set()
        self._open: set[int] = set()
        self._ours: dict[int, bool] = {}
        self.levels = 0
        self.has_untracked = False
        """Whether something was met that a container may refer to which the collector does not show."""
        own |= {id(self._objects), id(self._hits)}

    def climb(self, targets: Sequence[Sequence[Any]], most_levels: int | None = None) -> None:
        """Search back until nothing is left to follow, or the time is over.

        Args:
            targets: for each block of memory the objects that stand on it.
            most_levels: how far to go at most.
        """
        for number, values in enumerate(targets):
            # One object may lead to several targets: a parameter, and its gradient.
            places = [self._place[id(one)] if id(one) in self._place else self._add(one, []) for one in values]
            self._starts.append(places)
            for place in places:
                self._target_of.setdefault(place, number)
        level = list(range(len(self._objects)))
        self._hits += [(self._objects[index], index) for index in level if self._roots.is_root(self._objects[index])]
        levels_more = 0
        while level and levels_more <= _LEVELS_MORE and time.thread_time() < self._deadline:
            if self.levels == most_levels:
                break
            followed = self._few(level)
            self._open.update({*level}.difference(followed))
            level = self._level(followed)
            self.levels += 1
            levels_more = levels_more + 1 if self._count_held() == len(targets) else 0
        self._open.update(level)

    def _count_held(self) -> int:
        """Count the targets to that a way from some root was found."""
        for _, first in self._hits[self._looked_at :]:
            self._held.update(self._target_of[way[-1]] for way in self._ways(first))
        self._looked_at = len(self._hits)
        return len(self._held)

    def _few(self, level: list[int]) -> list[int]:
        """Choose what to follow of many objects: of each type in turn, for what is many is seldom what holds."""
        by_type: dict[int, list[int]] = {}
        for index in level if len(level) > _WIDEST else ():
            by_type.setdefault(id(type(self._objects[index])), []).append(index)
        turns = chain.from_iterable(zip_longest(*by_type.values()))
        return list(islice((index for index in turns if index is not None), _WIDEST)) or level

    def _level(self, level: list[int]) -> list[int]:
        following: list[int] = []
        # A tuple: of a list the call would make one, which since 3.13 is among the referrers.
        batch = tuple([self._objects[index] for index in level])
        own = {id(batch), *self._own}
        ids = {id(self._objects[index]): index for index in level}
        for index in level:
            self._hits += [(place, index) for place in self._roots.running.places(self._objects[index])]
        for referrer in self._referrers(batch, ids):
            if id(referrer) in own or self._is_ours(type(referrer)) or self._roots.is_passed_over(referrer):
                continue
            below = dict.fromkeys(ids[each] for each in map(id, referents_of([referrer])) if each in ids)
            if self._roots.is_root(referrer):
                self._hits += [(referrer, index) for index in below]
            else:
                following += self._take(referrer, list(below))
        return following

    def _is_ours(self, kind: type) -> bool:
        if id(kind) not in self._ours:
            self._ours[id(kind)] = raw.module_of(kind).partition(".")[0] == _OWN_PACKAGE
        return self._ours[id(kind)]

    def _referrers(self, batch: tuple[Any, ...], ids: Mapping[int, int]) -> list[Any]:
        found = gc.get_referrers(*batch)
        if not all(map(gc.is_tracked, batch)):
            self.has_untracked = True
            if self._untracked is not None:
                known = set(map(id, found))
                found += [container for container in self._untracked.referrers(ids) if id(container) not in known]
        return found

    def _take(self, referrer: Any, below: list[int]) -> list[int]:
        known = self._place.get(id(referrer))
        if known is None:
            return [self._add(referrer, below)] if below else []
        for index in below:
            if index == known:
                self._in_itself.add(known)
            elif 0 < len(self._below[known]) < _MOST_BELOW and index not in self._below[known]:
                self._below[known].append(index)
                self._above[index].append(known)
        return []

    def _add(self, value: Any, below: list[int]) -> int:
        index = len(self._objects)
        self._objects.append(value)
        self._below.append(below)
        self._above.append([])
        self._place[id(value)] = index
        for each in below:
            self._above[each].append(index)
        return index

    def paths(self) -> Iterator[tuple[int, list[Any]]]:
        """Give the ways from each root to a leaked object with the number of its target, the shortest ones first."""
        for root, first in sorted(self._distinct_hits(), key=lambda hit: hit[1]):
            for way in self._ways(first):
                path = [self._objects[index] for index in way]
                yield self._target_of[way[-1]], path if root is path[0] else [root, *path]

    def _distinct_hits(self) -> Iterator[tuple[Any, int]]:
        """Give each hit once; of several modules that know one object by a name, the one that defines it."""
        namespaces: dict[int, list[Any]] = {}
        for root, first in self._hits:
            if self._roots.is_namespace(root):
                namespaces.setdefault(first, []).append(root)
            else:
                yield root, first
        for first, found in namespaces.items():
            yield self._roots.modules.preferred(found, self._objects[first]), first

    def ways_to(self, number: int) -> list[list[Any]]:
        """Give the shortest way from each object that leads to a target, the nearest first."""
        return [[self._objects[place] for place in way] for way in self._ways_up(number).values()]

    def farthest(self, number: int) -> tuple[list[Any], bool]:
        """Give the way from the farthest object that leads to a target, and whether it was not followed farther."""
        ways = self._ways_up(number)
        left = [index for index in ways if index in self._open]
        way = ways[left[-1] if left else list(ways)[-1]]
        return [self._objects[place] for place in way], bool(left)

    def top(self, number: int) -> list[Any] | None:
        """Give the way from the farthest object that nothing refers to and that leads to a target."""
        ways = self._ways_up(number)
        tops = [index for index in ways if not self._above[index] and index not in self._in_itself]
        return [self._objects[place] for place in ways[tops[-1]]] if tops else None

    def _ways_up(self, number: int) -> dict[int, list[int]]:
        ways = {index: [index] for index in self._starts[number]}
        pending = deque(ways)
        while pending:
            index = pending.popleft()
            for above in self._above[index]:
                if above not in ways:
                    ways[above] = [above, *ways[index]]
                    pending.append(above)
        return ways

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
