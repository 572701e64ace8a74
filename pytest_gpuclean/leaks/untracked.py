"""Containers that the collector does not track, because they hold nothing but numbers, text and arrays."""

from __future__ import annotations

import gc
import time
from collections.abc import Collection, Sequence
from itertools import compress
from typing import Any

_KINDS = frozenset({id(dict), id(tuple)})
_DEPTH = 6
_AT_ONCE = 20_000
_FEW = 256


class Untracked:
    """The dicts and tuples that `gc.get_referrers` does not show; looked up once, when somebody asks."""

    def __init__(self, running: Sequence[Any], deadline: float) -> None:
        """Set it up.

        Args:
            running: what functions that are running refer to: their frames are in no list of the collector.
            deadline: on the clock of this thread (`time.thread_time`).
        """
        self._running = running
        self._deadline = deadline
        self.containers: list[Any] | None = None
        self.is_cut = False

    def referrers(self, wanted: Collection[int]) -> list[Any]:
        """List those that refer to one of some objects.

        Args:
            wanted: the identities of the objects.
        """
        if self.containers is None:
            self.containers = self._all()
        found: list[Any] = []
        for begin in range(0, len(self.containers), _FEW):
            few = self.containers[begin : begin + _FEW]
            if _refer(few, wanted):
                found += [container for container in few if _refer([container], wanted)]
        return found

    def own(self) -> tuple[int, int]:
        """Give the identities of the lists that this is made of."""
        return id(self.containers), id(self._running)

    def _all(self) -> list[Any]:
        found: dict[int, Any] = {}
        layer = gc.get_objects()
        layer += self._running
        for depth in range(_DEPTH):
            fresh = [container for container in _held_untracked(layer) if id(container) not in found]
            if depth == 0:
                fresh += _untracked_among(self._running)
            if not fresh:
                break
            found.update((id(container), container) for container in fresh)
            layer = fresh
            if time.thread_time() > self._deadline:
                self.is_cut = True
                break
        return list(found.values())


def _held_untracked(holders: list[Any]) -> list[Any]:
    found: list[Any] = []
    for begin in range(0, len(holders), _AT_ONCE):
        found += _untracked_among(gc.get_referents(*holders[begin : begin + _AT_ONCE]))
    return found


def _untracked_among(objects: Sequence[Any]) -> list[Any]:
    # By the identity of the type: a metaclass may compare or hash as it likes. Each step runs in C.
    kinds = map(_KINDS.__contains__, map(id, map(type, objects)))
    return [container for container in compress(objects, kinds) if not gc.is_tracked(container)]


def _refer(containers: list[Any], wanted: Collection[int]) -> bool:
    return any(map(wanted.__contains__, map(id, gc.get_referents(*containers))))
