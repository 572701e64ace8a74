"""Framework functions as they are at hand: an older release lacks some, and a lazy module must stay unloaded."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any


def loaded_module(name: str) -> ModuleType | None:
    """Return a module that is fully imported, or None; a mock or a lazy module counts as absent."""
    module = sys.modules.get(name)
    if type(module) is not ModuleType or getattr(module.__dict__.get("__spec__"), "_initializing", True):
        return None
    return module


def find(module: ModuleType, *path: str) -> Any:
    """Look up a dotted name inside a module; None where some part is missing."""
    found: Any = module
    for name in path:
        found = vars(found).get(name) if isinstance(found, ModuleType) else getattr(found, name, None)
        if found is None:
            return None
    return found


def call(what: str, function: Callable[[], Any] | None) -> list[str]:
    """Call a function that may be missing; name what it did."""
    if function is None:
        return []
    with warnings.catch_warnings():
        # A library may warn about the call itself (a deprecation); under `-W error` that would be our doing.
        warnings.simplefilter("ignore")
        function()
    return [what]
