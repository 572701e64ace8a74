"""The autograd graphs that tensors keep alive, and how much they have saved for a backward pass."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

from pytest_gpuclean.memory.autograd import WALK_SECONDS, Tensors
from pytest_gpuclean.memory.graph_limits import LookLimit
from pytest_gpuclean.memory.graph_nodes import NodeReader, Saved
from pytest_gpuclean.memory.interface import loaded
from pytest_gpuclean.memory.storages import Storage, StorageReaders

_CHECK_EVERY = 256
_PARTS = 256
"""How many objects are looked at in what a hook has packed."""
_BEYOND = 0.5
"""What counts have used up must not keep a leak from being explained."""
_CONTAINERS = (list, tuple, dict, set, frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """One autograd graph, in numbers and names."""

    heads: int
    """How many of the given tensors keep it: two losses of one forward pass are two heads of one graph."""
    functions: int
    first: str
    """The function that was called first, of those that save tensors: `AddmmBackward0`."""
    last: str
    """The function that was called last: `MseLossBackward0`."""
    saved: frozenset[Storage]
    """What it has saved, other than its leaves (parameters, inputs that require gradients) and the heads themselves."""
    is_freed: bool = False
    """Whether a backward pass has freed it: what it had saved is gone."""
    unread: int = 0
    """How many saved tensors could not be read without running a hook."""
    is_cut: bool = False
    """Whether it was too large to be looked through to its end: the figures are the least that it has."""

    @property
    def saved_bytes(self) -> int:
        """The size of all that it has saved, each storage once."""
        return sum(storage.size_bytes for storage in self.saved)


def graphs_of(
    tensors: Iterable[Any], *, rounds: bool = False, seconds: float = WALK_SECONDS, most_functions: int | None = None
) -> list[Graph]:
    """Look at the graphs that tensors keep alive, each graph once, the largest first.

    Args:
        tensors: what may keep a graph; anything else is passed by.
        rounds: whether device blocks count as the allocator rounds them.
        seconds: the most that this may take.
        most_functions: of graphs, that may be looked at in this process; by the size of the stack by default.
    """
    search = _Search(rounds, seconds, LookLimit(loaded("torch"), most_functions, beyond=_BEYOND))
    for tensor in tensors:
        search.add(tensor)
        if search.is_over:
            break
    return sorted(search.graphs(), key=lambda graph: graph.saved_bytes, reverse=True)


@dataclass(slots=True)
class _Part:
    """A graph as far as it is known."""

    heads: int = 0
    functions: int = 0
    first: tuple[bool, int, str] | None = None
    last: tuple[int, str] = (-1, "")
    saved: set[Storage] = field(default_factory=set)
    freed: int = 0
    unread: int = 0

    def take_in(self, other: _Part) -> None:
        self.heads += other.heads
        self.functions += other.functions
        self.first = min(filter(None, (self.first, other.first)), default=None)
        self.last = max(self.last, other.last)
        self.saved |= other.saved
        self.freed += other.freed
        self.unread += other.unread


class _Search:
    """Goes through graphs, function by function; graphs that turn out to share one become one."""

    def __init__(self, rounds: bool, seconds: float, limit: LookLimit) -> None:
        self._limit = limit
        self._tensors = Tensors()
        self._reader = NodeReader(loaded("torch"))
        self._storages = StorageReaders()
        self._storages.rounds = rounds
        self._seconds = seconds
        self._deadline: float | None = None
        self._parts: list[_Part] = []
        self._merged_into: list[int] = []
        self._part_of: dict[Any, int] = {}  # keeps the functions: their identity is that of an object made by looking
        self._leaves: set[Any] = set()
        self._kept_anyway: set[tuple[str, int]] = set()
        """Storages of leaves and heads: they live without any graph."""
        self._is_cut = False
        self.is_over = False
        """Whether nothing more may be looked at."""

    def add(self, tensor: Any) -> None:
        """Look at what a tensor keeps."""
        if not self._tensors.is_tensor(tensor):
            return
        with self._tensors.quietly():
            if not self._tensors.has_function(tensor):
                return
            if not self._limit.may_begin():
                self.is_over = self._is_cut = True
                return
            if self._deadline is None:  # the pass over the heap is done by now
                self._deadline = time.perf_counter() + self._seconds
            root = self._tensors.function_of(tensor)
            self._keep(tensor)
            self._parts.append(_Part(heads=1, last=(_sequence(root), self._reader.name(root))))
            self._merged_into.append(len(self._merged_into))
            self._follow(root, len(self._parts) - 1)

    def graphs(self) -> Iterator[Graph]:
        """Give what was found."""
        for index, part in enumerate(self._parts):
            if self._merged_into[index] != index:
                continue
            saved = frozenset(storage for storage in part.saved if storage.identity not in self._kept_anyway)
            yield Graph(
                heads=part.heads,
                functions=part.functions,
                first=part.first[2] if part.first else part.last[1],
                last=part.last[1],
                saved=saved,
                is_freed=part.freed > 0 and not saved,
                unread=part.unread,
                is_cut=self._is_cut,
            )

    def _follow(self, root: Any, index: int) -> None:
        pending, steps = [root], 0
        while pending:
            node = pending.pop()
            known = self._part_of.get(node)
            if known is not None:
                index = self._join(index, known)
                continue
            steps += 1
            if steps % _CHECK_EVERY == 1 and self._is_late():
                self.is_over = self._is_cut = True
                return
            if self._reader.is_leaf(node):
                self._note_leaf(node)
                continue
            self._part_of[node] = index
            self._read(node, self._parts[index])
            if self._limit.may_follow(node):
                pending += self._reader.following(node)
            else:
                self._is_cut = True

    def _is_late(self) -> bool:
        return self._deadline is not None and time.perf_counter() > self._deadline

    def _join(self, index: int, other: int) -> int:
        while self._merged_into[other] != other:
            other = self._merged_into[other]
        if index == other:
            return index
        if len(self._parts[index].saved) > len(self._parts[other].saved):
            index, other = other, index
        self._parts[other].take_in(self._parts[index])
        self._parts[index] = _Part()
        self._merged_into[index] = other
        return other

    def _note_leaf(self, node: Any) -> None:
        if node not in self._leaves:
            self._leaves.add(node)
            self._keep(self._reader.leaf(node))

    def _keep(self, tensor: Any) -> None:
        self._kept_anyway.update(storage.identity for storage in self._storages_in(tensor))

    def _read(self, node: Any, part: _Part) -> None:
        saved: Saved = self._reader.saved(node)
        part.functions += 1
        part.freed += saved.is_freed
        part.unread += saved.unread
        order = (not self._reader.has_slots(node), _sequence(node))
        if part.first is None or order < part.first[:2]:
            part.first = (*order, self._reader.name(node))
        for value in (*saved.tensors, *saved.packed):
            part.saved.update(self._storages_in(value))
        for value in saved.context:  # anything may be kept there: a whole model is not what the graph has saved
            if type(value) in _CONTAINERS or self._storages.reader_of(type(value)):
                part.saved.update(self._storages_in(value))

    def _storages_in(self, value: Any) -> Iterator[Storage]:
        """Give the storages of a tensor, of what it is made of, or of what a hook has made of one; nearest first."""
        found, seen = [value], {id(value)}
        for part in found:
            reader = self._storages.reader_of(type(part))
            storage = reader(part) if reader else None
            if storage is not None:
                yield storage
            elif len(found) < _PARTS and not _is_of_the_program(type(part)):
                inside = gc.get_referents(part)
                if self._tensors.is_tensor(part):
                    inside += [dense for dense, _ in self._tensors.sparse_parts_of(part)]
                news = {id(inner): inner for inner in inside if id(inner) not in seen}
                seen.update(news)
                found += news.values()


def _sequence(node: Any) -> int:
    """Return when a function was called, among those of its thread."""
    try:
        return int(node._sequence_nr())
    except Exception:
        return -1


def _is_of_the_program(kind: type) -> bool:
    bases = type.__dict__["__mro__"].__get__(kind)
    return any(base is wanted for base in bases for wanted in (type, ModuleType, FunctionType))
