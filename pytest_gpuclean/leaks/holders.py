"""Who holds it: what keeps leaked memory alive, named as a person knows it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pytest_gpuclean.leaks.finder import Finder
from pytest_gpuclean.model.leaks import Holder


@dataclass(frozen=True, slots=True)
class Target:
    """A block of memory that leaked."""

    values: tuple[Any, ...]
    """The Python objects that stand on it: a tensor, its views, a bare storage, an array and its base; at least one."""
    size_bytes: int
    suffix: str = ""
    """Where `values` only lead to it: `.grad`, ` -> saved by MulBackward0`. It ends the chain."""
    instead: Target | None = None
    """What to look for where nothing with a name refers to `values`: the tensor whose graph has them."""


class Holding(NamedTuple):
    """Who holds what leaked."""

    holders: tuple[Holder, ...]
    """The largest first."""
    cut: str
    """What was not followed, and why; empty where all was."""


def find_holders(
    targets: Sequence[Target],
    *,
    known: Mapping[int, str] = {},
    ours: Collection[int] = (),
    reached_from: Callable[[Any], Collection[int]],
    seconds: float = 1.0,
) -> Holding:
    """Find what keeps leaked memory alive, and name it.

    Args:
        targets: what leaked, the largest first.
        known: by the identity of an object, words for what only the caller knows: `fixture 'model' (module scope)`.
        ours: identities of objects of the caller that refer to targets and hold nothing.
        reached_from: gives the places of the targets that are reachable from a value through its data.
        seconds: the upper bound of what it takes, of this thread's own time: a busy machine cuts no search short.
    """
    deadline = time.thread_time() + seconds
    was_enabled = gc.isenabled()
    gc.disable()  # what is allocated here would set off collections, which cost as much as the search
    try:
        finder = Finder(targets, known, {*ours, id(targets)}, reached_from, deadline)
        failed = _find(finder)
        return Holding(finder.holders(), failed or finder.cut())
    finally:
        if was_enabled:
            gc.enable()


def _find(finder: Finder) -> str:
    """Search; what goes wrong ends the search and is told, and never reaches a test."""
    try:
        finder.find()
    except Exception as error:
        lines = str(error).splitlines() or [""]
        return f"the search ended early: {type(error).__name__}: {lines[0]}"
    return ""
