"""What differs between releases of Python where its objects are looked at from inside."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from itertools import compress, repeat
from operator import is_, is_not
from types import ModuleType
from typing import Any

# python/cpython#122695, ended in 3.12.6: `_asyncio` also gives the dead objects that it keeps to be used again. Whoever
# lets go of one ends it a second time; from then on every look at that module, also the collector's, never returns.
_GIVES_OUT_THE_DEAD = "_asyncio" if (3, 12) <= sys.version_info < (3, 12, 6) else None

_FROZEN_AT_START = 2000
"""Python 3.12 begins with 375 objects that are frozen."""


def referents_of(objects: Sequence[Any], harmful_name: str | None = _GIVES_OUT_THE_DEAD) -> list[Any]:
    """List what some objects refer to directly, as `gc.get_referents` does, without harm to the interpreter.

    Args:
        objects: any, also millions: each step runs in C.
        harmful_name: of the module of which only the namespace is given; None where this Python has no such.
    """
    if harmful_name is None:
        return gc.get_referents(*objects)
    modules = compress(objects, map(is_, map(type, objects), repeat(ModuleType)))
    harmful = [module for module in modules if _is_called(module, harmful_name)]
    for module in harmful:
        objects = list(compress(objects, map(is_not, objects, repeat(module))))
    return gc.get_referents(*objects) + [vars(module) for module in harmful]


def frozen_objects() -> int:
    """Count what `gc.freeze()` has put aside: the collector shows it to nobody; 0 where nobody has called it."""
    frozen = gc.get_freeze_count()
    return frozen if frozen > _FROZEN_AT_START else 0


def writes_locals_back(tracer: object) -> bool:
    """Tell whether reading the locals of a function would undo what it does meanwhile (until 3.12, under a tracer).

    Not under coverage's own, in which most suites are measured: it is called from C, where nothing is written back.

    Args:
        tracer: the `f_trace` of the function's frame.
    """
    return tracer is not None and sys.version_info < (3, 13) and type(tracer).__name__ != "CTracer"


def _is_called(module: ModuleType, name: str) -> bool:
    found = vars(module).get("__name__")
    return type(found) is str and found == name
