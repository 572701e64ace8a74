"""How far autograd graphs may be looked through without harm to whoever has made them.

From torch 2.13 on, the Python object that a look at a function makes stays as long as the function does, and functions
that have one are freed one inside the other: a chain of 45,000 of them overflowed a stack of 8 MiB. Functions that
nobody has looked at are freed one after the other. So there is a most for those that live, whoever has looked at them.
"""

from __future__ import annotations

import gc
import sys
from itertools import compress
from types import ModuleType
from typing import Any

from pytest_gpuclean.memory.interface import member

_STACK_BYTES = 1024
"""Of the stack for each function; measured: 210 to 350."""
_LARGEST_STACK_BYTES = 8 * 1024 * 1024
_WINDOWS_STACK_BYTES = 1024 * 1024
_LEAF = "AccumulateGrad"


def most_functions() -> int:
    """Return how many functions may have been looked at, by the size of the stack."""
    if sys.platform == "win32":
        return _WINDOWS_STACK_BYTES // _STACK_BYTES
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_STACK)
    if limit == resource.RLIM_INFINITY:
        limit = _LARGEST_STACK_BYTES
    return min(limit, _LARGEST_STACK_BYTES) // _STACK_BYTES


class LookLimit:
    """Knows which functions have been looked at before, and how many more may be."""

    def __init__(self, torch: ModuleType | None, most: int | None = None, *, beyond: float = 0.0) -> None:
        """Set it up.

        Args:
            torch: None where it is not loaded.
            most: how many functions may have been looked at and live; by the size of the stack where it is None.
            beyond: how far beyond that, as a share of it, a look may still begin, which then only comes by known ones
                and their neighbours.
        """
        functions = member(torch, "_C", "_functions") if torch else None
        types = [kind for kind in vars(functions).values() if isinstance(kind, type)] if functions else []
        self._custom = member(torch, "_C", "_FunctionBase") if torch else None
        self._kinds = {id(kind) for kind in types if kind.__name__ != _LEAF}
        self._most = most_functions() if most is None else most
        self._most_to_begin = int(self._most * (1 + beyond))
        self._known: dict[int, Any] | None = None
        self._new: dict[int, Any] = {}
        """By identity, which stays theirs as long as they are kept."""

    def known(self) -> list[Any]:
        """List the functions that had been looked at before this began."""
        return list(self._looked_at_before().values())

    def may_begin(self) -> bool:
        """Whether any function may be looked at."""
        return self._count() < self._most_to_begin

    def may_follow(self, node: Any) -> bool:
        """Whether the functions that follow on one may be looked at."""
        kind = type(node)
        # A leaf is where a chain ends. Functions of the user's have an object anyway, and are freed one by one.
        if kind.__name__ == _LEAF or any(base is self._custom for base in kind.__mro__):
            return True
        if id(node) in self._looked_at_before():
            return self.may_begin()
        self._new[id(node)] = node
        return self._count() < self._most

    def _count(self) -> int:
        return len(self._looked_at_before()) + len(self._new)

    def _looked_at_before(self) -> dict[int, Any]:
        if self._known is None:  # a pass over the heap, for whoever has graphs alone
            objects = gc.get_objects()
            found = compress(objects, map(self._kinds.__contains__, map(id, map(type, objects))))
            self._known = {id(function): function for function in found}
        return self._known
