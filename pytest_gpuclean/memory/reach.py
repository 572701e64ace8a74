"""What is reachable from a value through its data: attributes, containers, gradients, optimizer state, caches.

Not through modules, classes or a function's globals: those belong to the program, not to the value.
"""

from __future__ import annotations

import gc
import time
import types
import weakref
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from pytest_gpuclean.memory.autograd import Autograd
from pytest_gpuclean.memory.storages import StorageReaders, elements_of
from pytest_gpuclean.model.memory import Bytes

WALK_SECONDS = 5.0
"""A walk over a larger value is cut: what it did not reach counts as nobody's."""

_CHECK_EVERY = 4096
_OPAQUE_TYPES = frozenset(
    {
        types.ModuleType,
        types.FrameType,
        types.CodeType,
        types.TracebackType,
        types.GetSetDescriptorType,
        types.MemberDescriptorType,
        weakref.ReferenceType,
        type,
        str,
        bytes,
        int,
        float,
        bool,
        complex,
        type(None),
        range,
        slice,
    }
)


class Walk:
    """A walk from several values, one after the other: what one has reached does not count for the next."""

    def __init__(self, opaque_packages: Collection[str] = (), rounds: bool = False, limit: int | None = None) -> None:
        """Set the walk up.

        Args:
            opaque_packages: packages or single modules whose objects are not looked into, such as the test runner's.
            rounds: whether device blocks count in the allocator's grain (512 B).
            limit: the most objects to look at from one call of `measure`; no limit but the time by default.
        """
        self._readers = StorageReaders()
        self._readers.rounds = rounds
        self._opaque_packages = frozenset(opaque_packages)
        self._opaque: dict[int, bool] = dict.fromkeys(map(id, _OPAQUE_TYPES), True)
        self._seen: set[int] = set()
        self._storages: set[tuple[str, int]] = set()
        self._limit = limit
        self._deadline = time.monotonic() + WALK_SECONDS
        self._autograd = Autograd()

    def measure(self, roots: Iterable[Any]) -> Bytes:
        """Sum the storages that are reachable from the roots, by account."""
        found: Bytes = {}
        pending = list(roots)
        keep = []  # an object that dies meanwhile would give its id to another
        steps = 0
        while pending:
            value = pending.pop()
            kind = type(value)
            if id(value) in self._seen or self._is_opaque(kind):
                continue
            self._seen.add(id(value))
            keep.append(value)
            steps += 1
            if self._limit is not None and steps > self._limit:
                break
            if steps % _CHECK_EVERY == 0 and time.monotonic() > self._deadline:
                break
            reader = self._readers.reader_of(kind)
            if reader is not None:
                storage = reader(value)
                if storage is not None and storage.identity not in self._storages:
                    self._storages.add(storage.identity)
                    found[storage.account] = found.get(storage.account, 0) + storage.size_bytes
            pending += self._next(value, kind, is_tensor=reader is not None)
        return found

    @property
    def storages(self) -> AbstractSet[tuple[str, int]]:
        """The identity of each storage that the walk has come by."""
        return self._storages

    def has_reached(self, value: object) -> bool:
        """Tell whether the walk has come by an object."""
        return id(value) in self._seen

    def _is_opaque(self, kind: type) -> bool:
        known = self._opaque.get(id(kind))
        if known is not None:
            return known
        bases = type.__dict__["__mro__"].__get__(kind)
        module = str(kind.__module__)
        is_foreign = module in self._opaque_packages or module.partition(".")[0] in self._opaque_packages
        opaque = any(base is type or base is types.ModuleType for base in bases) or is_foreign
        self._opaque[id(kind)] = opaque  # by id: a metaclass may compare or hash as it likes
        return opaque

    def _next(self, value: Any, kind: type, *, is_tensor: bool) -> list[Any]:
        if kind is types.FunctionType:
            return [value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__]
        following = gc.get_referents(value)
        if is_tensor:
            following += elements_of(value)
            following += self._autograd.behind(value)
        return following
