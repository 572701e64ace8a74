"""The search forward from what the user's own modules hold: for chains that are too long to be followed back."""

from __future__ import annotations

import gc
import time
import types
import weakref
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pytest_gpuclean.leaks import raw
from pytest_gpuclean.leaks.roots import Roots

_MOST_OBJECTS = 500_000
_CHECK_EVERY = 2048
_NOT_ENTERED = frozenset(
    map(
        id,
        (
            type(None),
            bool,
            int,
            float,
            complex,
            str,
            bytes,
            bytearray,
            types.CodeType,
            types.ModuleType,
            types.BuiltinFunctionType,
            types.FrameType,
            types.GetSetDescriptorType,
            types.MemberDescriptorType,
            weakref.ReferenceType,
            type,
        ),
    )
)


class Forward:
    """A walk over everything that the user's modules reach, nearest first."""

    def __init__(self, roots: Roots, deadline: float) -> None:
        """Set it up.

        Args:
            roots: what knows the user's modules.
            deadline: on the clock of this thread (`time.thread_time`).
        """
        self._roots = roots
        self._deadline = deadline

    def search(self, goals: Mapping[int, object], own: Collection[int]) -> Iterator[list[Any]]:
        """Give the way to each goal that is reached: a root, then objects each of which refers to the next.

        Args:
            goals: by identity.
            own: identities of objects of the search and of its caller, through which nothing is held.
        """
        objects: list[Any] = []
        came_from: list[int] = []
        first: list[Any] = []
        seen: set[int] = {id(objects), id(first), *own}
        for root, value in self._starts():
            if id(value) not in seen and self._is_entered(value):
                seen.add(id(value))
                objects.append(value)
                came_from.append(-1)
                first.append(root)
        at = 0
        while at < len(objects) < _MOST_OBJECTS:
            if at % _CHECK_EVERY == 0 and time.thread_time() > self._deadline:
                return
            if id(objects[at]) in goals:
                yield _way(objects, came_from, first, at)
            else:
                for value in self._next(objects[at]):
                    if id(value) not in seen and self._is_entered(value):
                        seen.add(id(value))
                        objects.append(value)
                        came_from.append(at)
            at += 1

    def _starts(self) -> Iterator[tuple[Any, Any]]:
        for namespace in self._roots.modules.users():
            for _, value in raw.pairs_of(namespace):
                yield namespace, value
                if raw.is_class(value) and raw.module_of(value) == self._roots.modules.name_of(namespace):
                    for held in raw.namespace_of(value).values():
                        yield value, held
        yield from self._roots.running.variables()

    def _next(self, value: Any) -> list[Any]:
        if type(value) is types.FunctionType:
            return [value.__closure__, value.__defaults__, value.__kwdefaults__, raw.instance_dict(value)]
        return gc.get_referents(value)

    def _is_entered(self, value: Any) -> bool:
        kind = type(value)
        if id(kind) in _NOT_ENTERED or raw.is_a(kind, type):
            return False
        return not self._roots.is_namespace(value)


def _way(objects: list[Any], came_from: list[int], first: list[Any], at: int) -> list[Any]:
    way = [objects[at]]
    while came_from[at] >= 0:
        at = came_from[at]
        way.append(objects[at])
    return [first[at], *reversed(way)]
