"""What a value holds through the frames of functions that have ended: tracebacks keep their variables alive."""

from __future__ import annotations

import collections
import gc
import time
import types
from typing import Any

from pytest_gpuclean.leaks import raw

_MOST_OBJECTS = 20_000
_CHECK_EVERY = 1024
_ENTERED = (
    dict,
    list,
    tuple,
    set,
    frozenset,
    collections.deque,
    BaseException,
    types.TracebackType,
    types.FrameType,
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
)
_NOT_VARIABLES = frozenset(map(id, (types.FrameType, types.FunctionType, types.CodeType, types.ModuleType)))


def behind_frames(value: Any, deadline: float) -> list[Any]:
    """List the variables of the frames to that containers, exceptions and tracebacks lead.

    Args:
        value: where to begin.
        deadline: on the clock of this thread (`time.thread_time`).
    """
    seen: dict[int, Any] = {}
    found: list[Any] = []
    pending = [value]
    while pending and len(seen) < _MOST_OBJECTS:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen[id(each)] = each
        if len(seen) % _CHECK_EVERY == 0 and time.thread_time() > deadline:
            break
        referents = gc.get_referents(each)
        if type(each) is types.FrameType:
            found += [one for one in referents if id(type(one)) not in _NOT_VARIABLES and not _is_namespace(one)]
            pending += [one for one in referents if type(one) is types.FrameType]
        else:
            first = not found and each is value
            pending += [one for one in referents if first or raw.is_a(type(one), *_ENTERED)]
    return found


def _is_namespace(value: Any) -> bool:
    return type(value) is dict and raw.find(value, "__builtins__") is not raw.MISSING
