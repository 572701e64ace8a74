"""What is reachable from a value through its data: attributes, containers, gradients, optimizer state, caches.

Not through modules, classes or a function's globals: those belong to the program, not to the value.
"""

from __future__ import annotations

import gc
import sys
import time
import types
import weakref
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from pytest_gpuclean.memory.autograd import Autograd
from pytest_gpuclean.memory.interface import loaded, member
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
_CALLBACK: Any = vars(weakref.ref)["__callback__"]
_FRAME_OF = {
    id(types.GeneratorType): "gi_frame",
    id(types.CoroutineType): "cr_frame",
    id(types.AsyncGeneratorType): "ag_frame",
}
"""By id: a metaclass may compare or hash as it likes."""


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
        self._of_the_program = (type, types.ModuleType, *_loop_policies())
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
        opaque = any(base is one for base in bases for one in self._of_the_program) or is_foreign
        self._opaque[id(kind)] = opaque  # by id: a metaclass may compare or hash as it likes
        return opaque

    def _next(self, value: Any, kind: type, *, is_tensor: bool) -> list[Any]:
        if kind is types.FunctionType:
            return [value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__]
        following = gc.get_referents(value)
        if id(kind) in _FRAME_OF:
            following = _without_loop(following) + _variables_of(getattr(value, _FRAME_OF[id(kind)]))
        following += _held_for(value)
        if is_tensor:
            following += elements_of(value)
            following += self._autograd.behind(value)
        return following


def _loop_policies() -> list[type]:
    """Name the type of what asyncio keeps for the whole program: the loop that is set, with its tasks and processes.

    pytest-asyncio has it as the value of a fixture of the session.
    """
    events = loaded("asyncio.events")
    names = ("AbstractEventLoopPolicy", "_AbstractEventLoopPolicy")  # the second since Python 3.14
    return [kind for kind in (member(events, name) for name in names if events) if isinstance(kind, type)]


def _without_loop(following: Iterable[Any]) -> list[Any]:
    """Leave out the loop that is to close an async generator: with all its tasks, it is not the generator's."""
    return [one for one in following if type(one) is not types.MethodType or not _is_hook_of_loop(one.__func__)]


def _is_hook_of_loop(function: Any) -> bool:
    return type(function) is types.FunctionType and function.__name__ == "_asyncgen_finalizer_hook"


def _variables_of(frame: types.FrameType | None) -> list[Any]:
    """List the variables of a suspended frame, where its generator does not lead to them: up to Python 3.10."""
    if frame is None or sys.version_info >= (3, 11):
        return []
    around = (frame.f_back, frame.f_globals, frame.f_builtins)
    return [one for one in gc.get_referents(frame) if not any(one is other for other in around)]


def _held_for(value: Any) -> list[Any]:
    """List what is held by weak references to an object for as long as it lives, and goes with it.

    Those are the entries of weak dictionaries that have it as their key, what is to be called at its end, and with
    which arguments.
    """
    found = []
    for reference in weakref.getweakrefs(value):
        if not issubclass(type(reference), weakref.ref):  # a proxy passes on whatever it is asked for
            continue
        callback = _CALLBACK.__get__(reference)
        found.append(callback)
        if type(callback) is weakref.finalize:
            found.append(callback.peek())
        elif type(callback) is types.FunctionType:
            found += _entry_of(reference, callback)
    return found


def _entry_of(reference: Any, callback: types.FunctionType) -> list[Any]:
    """Find the entry of a weak dictionary by what the dictionary has called when the key is gone.

    `WeakKeyDictionary` of the standard library, and those that torch has made after it.
    """
    owners = [default() for default in callback.__defaults__ or () if type(default) is weakref.ref]
    try:
        return [vars(owner)["data"][reference] for owner in owners if owner is not None]
    except Exception:  # another callback, or a key that cannot be compared
        return []
