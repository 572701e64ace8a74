"""The search forward from what the user's own modules hold: all targets at once, and chains of any length."""

from __future__ import annotations

import enum
import gc
import time
import types
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from pytest_gpuclean.leaks import arrays, frames, raw
from pytest_gpuclean.leaks.roots import Roots

_MOST_OBJECTS = 1_000_000
_CHECK_EVERY = 1024
_WIDE = 4096
"""What refers to more than that waits until all else is looked at: so wide are tables of data, seldom what leaks."""
_NOT_ENTERED = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    range,
    slice,
    types.CodeType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    weakref.ReferenceType,
)


_CONTAINERS = frozenset(id(kind) for kind in (dict, list, tuple, set, frozenset, types.FunctionType))


class _Way(enum.Enum):
    """What to do with the objects of a type."""

    PAST = enum.auto()
    IN = enum.auto()
    LOOK = enum.auto()
    """It depends on the object."""


class Forward:
    """A walk over everything that the user's modules reach, nearest and narrowest first, and the way to each of it."""

    def __init__(self, roots: Roots) -> None:
        """Set it up.

        Args:
            roots: what knows the user's modules.
        """
        self._roots = roots
        self._objects: list[Any] = []
        self._came_from: list[int] = []
        self._tops: list[int] = []
        """For each object, which of the first ones leads to it, or which attribute of the first one."""
        self._holding: dict[int, list[Any]] = {}
        """For each of the first ones that is no root itself, the roots that have it."""
        self._are_roots: set[int] = set()
        self._place: dict[int, int] = {}
        self._kinds: dict[int, _Way] = {}
        self._modules: set[str] = set()
        """The names of the user's."""
        self._array = arrays.array_type()
        self._at = 0
        self._wide: deque[int] = deque()
        """Where those stand that were put off."""
        self.has_all = False
        """Whether everything that was wanted was reached."""

    @property
    def is_done(self) -> bool:
        """Whether everything was reached."""
        return 0 < len(self._objects) == self._at and not self._wide

    def run(self, wanted: set[int], own: Collection[int], deadline: float) -> None:
        """Walk until all that is wanted is reached, or the time is over; where it has ended it goes on.

        Args:
            wanted: identities.
            own: identities of objects of the search and of its caller, through which nothing is held.
            deadline: on the clock of this thread (`time.thread_time`).
        """
        skipped = {*own, *self.own()}
        if not self._objects:
            for root, value in self._starts():
                if id(value) not in skipped:
                    self._enter_first(root, value)
        missing = wanted - self._place.keys()
        steps = 0
        while missing and (self._at < len(self._objects) or self._wide) and len(self._objects) < _MOST_OBJECTS:
            steps += 1
            if (steps % _CHECK_EVERY == 0 or self._at == len(self._objects)) and time.thread_time() > deadline:
                return
            missing.difference_update(self._step(skipped))
        self.has_all = not missing

    def _step(self, skipped: set[int]) -> list[int]:
        """Enter what the next object refers to, and return the identities of it."""
        if self._at < len(self._objects):
            at, is_late = self._at, False
            self._at += 1
        else:
            at, is_late = self._wide.popleft(), True
        values = self._next(self._objects[at])
        if len(values) > _WIDE and not is_late:
            self._wide.append(at)
            return []
        place, kinds, known = self._place, self._kinds, self._roots.known
        top = None if self._leads_by_attributes(at) else self._tops[at]
        fresh: list[int] = []
        for value in values:
            identity = id(value)
            if identity in place or identity in skipped:
                continue
            way = kinds.get(id(type(value)))
            if way is _Way.IN and identity not in known:
                self._add(value, at, top)
            elif way is _Way.PAST or self._enter(value, at, top) is None:
                continue
            fresh.append(identity)
        return fresh

    def own(self) -> tuple[int, ...]:
        """Give the identities of what this is made of that refers to what was reached."""
        return id(self._objects), *map(id, self._holding.values())

    def find(self, values: Iterable[Any]) -> int | None:
        """Return where the first of some objects stands that was reached, or None."""
        for value in values:
            at = self._place.get(id(value))
            if at is not None:
                return at
        return None

    def top_of(self, at: int) -> int:
        """Return which of the first objects, or of their attributes, has led to one."""
        return self._tops[at]

    def way_to(self, at: int) -> list[Any]:
        """Give the way to an object: a root, then objects each of which refers to the next."""
        way = [self._objects[at]]
        while self._came_from[at] >= 0:
            at = self._came_from[at]
            way.append(self._objects[at])
        roots = self._holding.get(at, [])
        return [*self._roots.preferred(roots, way[-1]), *reversed(way)]

    def _starts(self) -> Iterator[tuple[Any, Any]]:
        users = self._roots.modules.users()
        self._modules.update(map(self._roots.modules.name_of, users))
        for namespace in users:
            for _, value in raw.pairs_of(namespace):
                yield namespace, value
        yield from self._roots.running.variables()

    def _enter_first(self, root: Any, value: Any) -> None:
        at = self._place.get(id(value))
        if at is None:
            at = self._enter(value, -1, None)
        if at is not None and at not in self._are_roots:
            self._holding.setdefault(at, []).append(root)

    def _enter(self, value: Any, came_from: int, top: int | None) -> int | None:
        kind = type(value)
        way = self._kinds.get(id(kind))  # by id: a metaclass may compare or hash as it likes
        if way is None:
            way = self._kinds[id(kind)] = self._way_of(kind)
        if way is _Way.PAST or (way is _Way.LOOK and not self._may_enter(value, kind)):
            return None
        may_be_root = (way is _Way.LOOK and kind is not dict) or id(value) in self._roots.known
        if may_be_root and self._roots.is_root(value):
            self._are_roots.add(len(self._objects))
            came_from, top = -1, None
        return self._add(value, came_from, top)

    def _add(self, value: Any, came_from: int, top: int | None) -> int:
        at = len(self._objects)
        self._tops.append(at if top is None else top)
        self._place[id(value)] = at
        self._objects.append(value)
        self._came_from.append(came_from)
        return at

    def _leads_by_attributes(self, at: int) -> bool:
        """Tell whether an object is one of the first ones and no container, or the `__dict__` of such a one."""
        above = self._came_from[at]
        if above < 0:
            return id(type(self._objects[at])) not in _CONTAINERS
        return (
            self._came_from[above] < 0
            and type(self._objects[at]) is dict
            and id(type(self._objects[above])) not in _CONTAINERS
        )

    def _way_of(self, kind: type) -> _Way:
        if raw.is_a(kind, types.ModuleType) or any(kind is one for one in _NOT_ENTERED):
            return _Way.PAST
        is_special = kind is dict or kind is types.FrameType or self._roots.may_be_root(kind)
        return _Way.LOOK if is_special else _Way.IN

    def _may_enter(self, value: Any, kind: type) -> bool:
        if kind is dict:
            return not self._roots.modules.is_loaded(value)
        if kind is types.FrameType:
            return not self._roots.is_passed_over(value)
        return not raw.is_a(kind, type) or raw.module_of(value) in self._modules

    def _next(self, value: Any) -> list[Any]:
        found = gc.get_referents(value) or arrays.elements_of(value, self._array)
        kind = type(value)
        if kind is types.FunctionType:
            return [each for each in found if each is not value.__globals__]
        frame = value if kind is types.FrameType else frames.frame_of(value)
        if frame is not None:
            names = frames.names_of(frame.f_code)
            return [each for each in found if type(each) is not dict or not _is_of_frame(each, frame, names)]
        return found


def _is_of_frame(candidate: dict[Any, Any], frame: types.FrameType, names: frozenset[str]) -> bool:
    """Tell whether a dict is the frame's namespace, or until 3.12 its copy of the variables: it is read by itself."""
    if candidate is frame.f_globals or candidate is frame.f_builtins:
        return True
    return all(type(key) is str and key in names for key, _ in raw.pairs_of(candidate))
