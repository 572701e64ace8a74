"""What a source of memory figures looks like, and how a framework is looked at without touching it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.memory import Reading


@runtime_checkable
class Probe(Protocol):
    """Reads what one framework has in use, on each device that it has already initialised.

    It never imports the framework and never initialises a device: what is not in use yields nothing.
    """

    source: str

    def read(self) -> Iterable[Reading | Unavailable]:
        """Give one reading a device."""

    def reset_peak(self) -> None:
        """Begin a new peak on every initialised device, where the source can."""


def loaded(name: str) -> ModuleType | None:
    """Return a module that is fully imported, or None.

    Nothing is triggered: a lazy module stays unloaded, and a module that is still being imported, a stand-in
    that a test has put into `sys.modules`, or a blocked import (None) counts as absent.
    """
    module = sys.modules.get(name)
    # type(): isinstance would run the `__class__` property of a mock or a lazy module.
    if module is None or not _is_plain_module(type(module)):
        return None
    spec = module.__dict__.get("__spec__")
    if spec is None or getattr(spec, "_initializing", False):
        return None
    return module


def member(module: ModuleType, *path: str) -> Any:
    """Look up a dotted name inside a module without running any module's lazy `__getattr__`.

    Returns None where some part of the path is missing, as in an older release.
    """
    found: Any = module
    for name in path:
        namespace = found.__dict__ if hasattr(type(found), "__dict__") or type(found) is ModuleType else {}
        found = namespace.get(name)
        if found is None:
            return None
    return found


def _is_plain_module(kind: type) -> bool:
    # importlib's LazyLoader and the like are subclasses that load on the first attribute.
    return kind is ModuleType or (issubclass(kind, ModuleType) and "__getattribute__" not in _own_names(kind))


def _own_names(kind: type) -> set[str]:
    mro = type.__dict__["__mro__"].__get__(kind)
    return {name for base in mro if base not in (ModuleType, object) for name in vars(base)}


def whole(value: object) -> int:
    """Check that a figure is a whole number: a test's stand-in for a framework may answer with mocks.

    Raises:
        TypeError: where it is something else.
    """
    if type(value) is not int:
        raise TypeError(f"a figure is of type {type(value).__name__}, not a whole number")
    return value


def first_line(error: BaseException) -> str:
    """Name an error in one line."""
    try:
        text = str(error).strip()
    except Exception:
        text = ""
    kind = type(error).__name__
    return f"{kind}: {text.splitlines()[0]}" if text else kind
