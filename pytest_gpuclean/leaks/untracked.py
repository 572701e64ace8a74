"""Containers that the collector does not track, because they hold nothing but numbers, text and arrays."""

from __future__ import annotations

import gc
import operator
import time
import types
from collections.abc import Collection, Sequence
from itertools import compress
from typing import Any

from pytest_gpuclean.interpreter import referents_of
from pytest_gpuclean.leaks.frames import Running

_KINDS = frozenset({id(dict), id(tuple)})
_WITHOUT = frozenset(
    id(kind)
    for kind in (
        types.FunctionType,
        types.BuiltinFunctionType,
        types.GetSetDescriptorType,
        types.MemberDescriptorType,
        types.WrapperDescriptorType,
        types.MethodDescriptorType,
        types.ClassMethodDescriptorType,
        types.ModuleType,
        type,
        property,
        staticmethod,
        classmethod,
    )
)
"""What refers to many untracked tuples and dicts, and to none with arrays: two thirds of the heap of torch."""
_DEPTH = 6
_AT_ONCE = 20_000
_FEW = 256


class Untracked:
    """The dicts and tuples that `gc.get_referrers` does not show; looked up once, when somebody asks."""

    def __init__(self, running: Running, deadline: float) -> None:
        """Set it up.

        Args:
            running: what functions that are running refer to: their frames are in no list of the collector.
            deadline: on the clock of this thread (`time.thread_time`).
        """
        self._running = running
        self._deadline = deadline
        self._containers: list[Any] = []
        self._is_begun = False
        self.is_done = False
        """Whether all of them were found."""

    def referrers(self, wanted: Collection[int]) -> list[Any]:
        """List those that refer to one of some objects.

        Args:
            wanted: the identities of the objects.
        """
        if not self._is_begun:
            self._find()
        found: list[Any] = []
        for begin in range(0, len(self._containers), _FEW):
            few = self._containers[begin : begin + _FEW]
            if _refer(few, wanted):
                found += [container for container in few if _refer([container], wanted)]
        return found

    def own(self) -> tuple[int, ...]:
        """Give the identities of the lists that this is made of."""
        return (id(self._containers),)

    def _find(self) -> None:
        self._is_begun = True
        seen: set[int] = set()
        running = [value for _, value in self._running.variables()]
        layer = _of_kinds(gc.get_objects(), _WITHOUT, wanted=False)
        layer += running
        fresh = _untracked_among(running)
        for _ in range(_DEPTH):
            for begin in range(0, len(layer), _AT_ONCE):
                fresh += _untracked_among(referents_of(layer[begin : begin + _AT_ONCE]))
                if time.thread_time() > self._deadline:
                    return
            layer = list({id(container): container for container in fresh if id(container) not in seen}.values())
            seen.update(map(id, layer))
            self._containers += layer
            fresh = []
        self.is_done = True


def _untracked_among(objects: Sequence[Any]) -> list[Any]:
    return [container for container in _of_kinds(objects, _KINDS, wanted=True) if not gc.is_tracked(container)]


def _of_kinds(objects: Sequence[Any], kinds: Collection[int], *, wanted: bool) -> list[Any]:
    # By the identity of the type: a metaclass may compare or hash as it likes. Each step runs in C.
    are = map(kinds.__contains__, map(id, map(type, objects)))
    return list(compress(objects, are if wanted else map(operator.not_, are)))


def _refer(containers: list[Any], wanted: Collection[int]) -> bool:
    return any(map(wanted.__contains__, map(id, gc.get_referents(*containers))))
