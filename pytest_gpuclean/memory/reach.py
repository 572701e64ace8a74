"""What is reachable from a value through its data: attributes, containers, gradients, optimizer state, caches.

Not through modules, classes or a function's globals: those belong to the program, not to the value.
"""

from __future__ import annotations

import functools
import gc
import time
import types
import weakref
from collections.abc import Collection, Hashable, Iterable
from typing import Any, cast

from pytest_gpuclean.memory.interface import loaded
from pytest_gpuclean.memory.storages import StorageReaders
from pytest_gpuclean.model import Bytes

WALK_SECONDS = 5.0
"""A walk over a larger value is cut: what it did not reach counts as nobody's."""

_CHECK_EVERY = 4096
_OPAQUE_TYPES = frozenset(
    {
        types.ModuleType,
        types.FrameType,
        types.CodeType,
        types.TracebackType,
        types.BuiltinFunctionType,
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

    def __init__(self, opaque_packages: Collection[str] = (), rounds: bool = False) -> None:
        """Set the walk up.

        Args:
            opaque_packages: top-level packages whose objects are not looked into, such as the test runner's.
            rounds: whether device blocks count in the allocator's grain (512 B).
        """
        self._readers = StorageReaders()
        self._readers.rounds = rounds
        self._opaque_packages = frozenset(opaque_packages)
        self._opaque: dict[type, bool] = dict.fromkeys(_OPAQUE_TYPES, True)
        self._seen: set[int] = set()
        self._storages: set[tuple[str, int]] = set()
        self._deadline = time.monotonic() + WALK_SECONDS
        torch = loaded("torch")
        self._is_leaf = getattr(torch.Tensor, "is_leaf", None) if torch else None
        self._tensor = torch.Tensor if torch else None

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

    def _is_opaque(self, kind: type) -> bool:
        try:
            return self._opaque[kind]
        except KeyError:
            pass
        bases = type.__dict__["__mro__"].__get__(kind)
        package = str(kind.__module__).partition(".")[0]
        opaque = type in bases or types.ModuleType in bases or package in self._opaque_packages
        self._opaque[kind] = opaque
        return opaque

    def _next(self, value: Any, kind: type, *, is_tensor: bool) -> list[Any]:
        if kind is types.FunctionType:
            return [value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__]
        following = gc.get_referents(value)
        if is_tensor and self._tensor in type.__dict__["__mro__"].__get__(kind):
            following.append(self._gradient(value))
            following += _saved_by_graph(value)
        return following

    def _gradient(self, tensor: Any) -> Any:
        # It has no Python wrapper until somebody asks for it; asking a tensor that is no leaf warns.
        try:
            return self._tensor.grad.__get__(tensor) if self._is_leaf.__get__(tensor) else None  # type: ignore[union-attr]
        except Exception:
            return None


_GRAPH_NODES = 20_000


def _saved_by_graph(tensor: Any) -> list[Any]:
    """List what the autograd graph behind a tensor has saved: a value that keeps a graph keeps these too."""
    try:
        first = tensor.grad_fn
    except Exception:
        return []
    saved: list[Any] = []
    seen: set[Any] = set()
    pending = [first] if first is not None else []
    while pending and len(seen) < _GRAPH_NODES:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        pending += [following for following, _ in node.next_functions]
        for name in _saved_names(cast("Hashable", type(node))):
            try:
                saved.append(getattr(node, name))
            except Exception:  # the graph's buffers were freed by a backward pass
                continue
        saved.append(getattr(node, "variable", None))
    return saved


@functools.cache
def _saved_names(node_type: Any) -> tuple[str, ...]:
    return tuple(name for name in dir(node_type) if name.startswith("_saved_"))
