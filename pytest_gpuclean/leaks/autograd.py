"""Kept autograd graphs, in words: a kept loss is a few bytes, and may hold hundreds of MiB."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pytest_gpuclean.units import format_size

CAUSE = "kept-graph"
"""The stable name of the advice."""
ADVICE = "keep the number, not the graph: loss.item(), or output.detach()"
_LEAST_SHARE = 0.25


class SavedStorage(Protocol):
    """A block of memory that a graph has saved; equal ones are the same block."""

    @property
    def size_bytes(self) -> int:
        """Its size."""

    def __hash__(self) -> int: ...


class KeptGraph(Protocol):
    """A graph that something keeps, in numbers and names."""

    @property
    def heads(self) -> int:
        """How many tensors keep it."""

    @property
    def functions(self) -> int:
        """How many functions were called."""

    @property
    def first(self) -> str:
        """The name of the first of them that saves tensors."""

    @property
    def last(self) -> str:
        """The name of the last of them."""

    @property
    def saved(self) -> Collection[SavedStorage]:
        """What it has saved."""

    @property
    def is_freed(self) -> bool:
        """Whether a backward pass has freed what it had saved."""

    @property
    def unread(self) -> int:
        """How many saved tensors could not be read."""

    @property
    def is_cut(self) -> bool:
        """Whether there is more of it than was looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNote:
    """What is to be told of the graphs behind a leak."""

    text: str
    saved_bytes: int
    cause: str
    """The stable name of the advice; empty where the graphs hold too little of the leak to be its cause."""


def note_graphs(
    graphs: Iterable[KeptGraph], leaked_bytes: int, *, least_share: float = _LEAST_SHARE
) -> GraphNote | None:
    """Say what kept graphs hold; None where they hold nothing.

    Args:
        graphs: those that leaked tensors keep.
        leaked_bytes: the leak.
        least_share: of the leak, from which on the graphs are its cause.
    """
    holding = [graph for graph in graphs if graph.saved or graph.unread]
    if not holding:
        return None
    saved_bytes = _saved_bytes(holding)
    is_cause = saved_bytes > 0 and saved_bytes >= least_share * leaked_bytes
    return GraphNote(text=describe(holding), saved_bytes=saved_bytes, cause=CAUSE if is_cause else "")


def describe(graphs: Sequence[KeptGraph]) -> str:
    """Put kept graphs into one line: how many, of what, and how much they hold; empty where there is none."""
    if not graphs:
        return ""
    count = len(graphs)
    subject = f"{count} kept graph{'s' * (count > 1)} of {_functions(graphs)} ({_names(graphs)})"
    if all(graph.is_freed for graph in graphs):
        return f"{subject}, freed by backward: nothing saved is left"
    is_cut = any(graph.is_cut for graph in graphs)
    size = f"{'at least ' * is_cut}{format_size(_saved_bytes(graphs))}"
    unread = sum(graph.unread for graph in graphs)
    more = f", and {unread} more that this torch does not show" if unread else ""
    return f"{subject} hold{'s' * (count == 1)} {size} of saved tensors{more}"


def _saved_bytes(graphs: Iterable[KeptGraph]) -> int:
    saved = {storage for graph in graphs for storage in graph.saved}
    return sum(storage.size_bytes for storage in saved)


def _functions(graphs: Sequence[KeptGraph]) -> str:
    least, most = min(graph.functions for graph in graphs), max(graph.functions for graph in graphs)
    numbers = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    over = "over " * any(graph.is_cut for graph in graphs)
    return f"{over}{numbers} function{'s' * (most != 1)}"


def _names(graphs: Sequence[KeptGraph]) -> str:
    largest = max(graphs, key=lambda graph: sum(storage.size_bytes for storage in graph.saved))
    return largest.first if largest.first == largest.last else f"{largest.first} ... {largest.last}"
