"""Arrays that came with a module which was imported meanwhile: constants of a package are no test's leak."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


class ImportWatch:
    """Knows which modules were there at the last mark."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._count = -1

    def mark(self) -> None:
        """Take every module that is loaded now as known. Costs nothing where none has come."""
        if len(sys.modules) != self._count:
            self._known = set(sys.modules)
            self._count = len(sys.modules)

    def new_values(self) -> Iterator[Any]:
        """Give the global values of the modules that came since, and those of the classes they define."""
        for name, module in list(sys.modules.items()):
            if name in self._known or not _is_imported(module):
                continue
            for value in list(vars(module).values()):
                yield value
                if isinstance(value, type) and value.__module__ == name:
                    yield from list(vars(value).values())


def _is_imported(module: object) -> bool:
    # Without a specification it was put there by hand, and so was what it holds. One of another type may be lazy.
    return type(module) is ModuleType and vars(module).get("__spec__") is not None
