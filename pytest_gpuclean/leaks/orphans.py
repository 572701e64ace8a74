"""What is held, but by nothing that has a name: by code in C, by a cycle, by what the interpreter keeps."""

from __future__ import annotations

import atexit
import contextlib
import functools
import inspect
import sys
import types
from collections.abc import Sequence
from typing import Any

from pytest_gpuclean.interpreter import frozen_objects
from pytest_gpuclean.leaks import causes, functions, raw
from pytest_gpuclean.leaks.landmarks import Start
from pytest_gpuclean.leaks.modules import Modules
from pytest_gpuclean.leaks.roots import Roots
from pytest_gpuclean.leaks.search import Trail

_CONTAINERS = frozenset(id(kind) for kind in (dict, list, tuple, set, frozenset, types.CellType))
_CALLABLES = frozenset(map(id, (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)))
_SAID_BY_THE_NEXT = frozenset({"Context", "generator", "coroutine", "async_generator", "traceback", "frame"})


def describe(trail: Trail, number: int, roots: Roots, *, is_sure: bool) -> tuple[Sequence[Any], Start]:
    """Give the way that was found to a target of which no root was found, and how its chain begins.

    Args:
        trail: of the search back.
        number: of the target in it.
        roots: what knows the names of classes.
        is_sure: whether what the search has not found is not there.
    """
    path, is_cut = trail.farthest(number)
    if is_cut:
        return path, _not_farther(path, trail.levels)
    top = trail.top(number)
    if top is not None:
        return top, _start_above(top, roots.modules) if is_sure else _not_farther(top, trail.levels)
    for at, value in enumerate(path):
        if raw.is_class(value):
            return path[at:], roots.of_class(path[at:])
    path = path[_nearest_instance(path) :]
    return path, Start(causes.CYCLE, words=f"reference cycle of {raw.type_name(type(path[0]))}")


def _not_farther(path: Sequence[Any], levels: int) -> Start:
    far = f"{levels:,} level{'' if levels == 1 else 's'}"
    return Start(causes.NOT_FOLLOWED, words=f"followed {far} back, to {raw.type_name(type(path[0]))}")


def _start_above(path: Sequence[Any], modules: Modules) -> Start:
    """Begin a chain with an object that nothing refers to."""
    kind = type(path[0])
    if len(path) == 1:
        return Start(causes.NO_HOLDER, words=f"no Python object refers to it{_frozen()}")
    callback = _exit_callback(path[0], modules)
    if callback is not None:
        return callback
    if raw.module_of(kind) in ("builtins", "_contextvars") and raw.qualname_of(kind) in _SAID_BY_THE_NEXT:
        # Of all of these the frame alone is of no kind of its own: what keeps it is code in C (greenlet).
        return Start(causes.NO_HOLDER if kind is types.FrameType else "")
    if raw.is_a(kind, BaseException):
        return Start(causes.EXCEPTION)
    return Start(causes.NO_HOLDER, words=f"{raw.type_name(kind)} that no Python object refers to{_frozen()}")


def _nearest_instance(path: Sequence[Any]) -> int:
    """Return which object of a path is the last that is more than a container; else the first."""
    for at in reversed(range(len(path) - 1)):
        if id(type(path[at])) not in _CONTAINERS:
            return at
    return 0


def _frozen() -> str:
    return ", but for what gc.freeze() has put aside" if frozen_objects() else ""


def _exit_callback(top: Any, modules: Modules) -> Start | None:
    """Recognise what `atexit` keeps in C: a callback, or the arguments of one."""
    kind = id(type(top))
    if kind not in _CALLABLES and kind not in (id(tuple), id(dict)):
        return None
    callbacks = _exit_callbacks()
    if kind in _CALLABLES:
        if not any(callback is top for callback in callbacks):
            return None
        return Start(causes.ATEXIT, words=f"atexit callback {functions.callable_name(top)}")
    called = {functions.callable_name(callback) for callback in callbacks if _takes(callback, top)}
    foreign = sorted(name for name in called if name.partition(".")[0] not in sys.stdlib_module_names)
    names = [name for name in foreign if modules.defines_users(name)] or foreign
    if not names:
        return None
    lead = "args" if kind == id(tuple) else "kwargs"
    if len(names) == 1:
        return Start(causes.ATEXIT, words=f"atexit callback {names[0]}", lead=lead)
    detail = f"one of {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
    return Start(causes.ATEXIT, words="atexit callback", lead=lead, detail=detail)


def _takes(callback: Any, arguments: tuple[Any, ...] | dict[str, Any]) -> bool:
    """Whether a callback may have been registered with these: what other code in C holds are tuples as well."""
    calls = (raw.find(raw.namespace_of(kind), "__call__") for kind in raw.mro_of(type(callback)))
    if raw.is_class(callback) or any(type(call) is types.FunctionType for call in calls):
        return True  # not asked: it may do anything then
    try:
        signature = inspect.signature(callback, follow_wrapped=False)
        if isinstance(arguments, tuple):
            signature.bind_partial(*arguments)
        else:
            signature.bind_partial(**arguments)
    except Exception:  # also of a function in C that tells none: by such, frameworks come to their end
        return False
    return True


class _Listener:
    """Hears of each callback: `atexit` compares it with what is to be unregistered, and shows it in no other way."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        self.heard.append(other)
        return False


def _exit_callbacks() -> list[Any]:
    listener = _Listener()
    with contextlib.suppress(Exception):  # a callback that cannot be compared
        atexit.unregister(listener)  # type: ignore[arg-type]
    heard, listener.heard = listener.heard, []
    return heard
