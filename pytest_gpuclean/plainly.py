"""Imports modules of this package as Python does, where pytest would import them as it does tests.

pytest takes all modules of a plugin for helpers with assertions. Where no bytecode may be written it compiles them anew
in each run, and else it reads their bytecode in pieces of a few bytes: 0.5 s, or 50 ms, where the plugin is on.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _Plainly:
    """A finder that comes before pytest's, inside a `with` alone."""

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)

    def __exit__(self, *error: object) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(name, path, target) if name.startswith("pytest_gpuclean.") else None


plainly = _Plainly()
