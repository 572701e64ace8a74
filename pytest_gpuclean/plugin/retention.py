"""What pytest and its plugins keep alive of a test, and how it is let go. Private names of theirs are here alone.

What is told of a failure stays the same: reports are made by then, and texts are not touched. First only what holds
memory is let go, so that others still find the rest (a browser page, a driver) while they make their report.
"""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any

import pytest

HoldsMemory = Callable[[object], bool]
"""Tells whether tensors or arrays are reachable from a value."""

_PLAIN = (str, bytes, int, float, bool, complex, type(None))
_YIELDS = {dis.opmap[name] for name in ("YIELD_VALUE", "YIELD_FROM", "RETURN_GENERATOR") if name in dis.opmap}
_YIELD_FROM = bytes([dis.opmap["YIELD_FROM"]]) if "YIELD_FROM" in dis.opmap else None
_GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def may_clear_frames(config: pytest.Config) -> bool:
    """Whether nobody is going to look at a failed test's frames: a debugger would find them empty."""
    # `option` rather than getoption(): this is asked after every test.
    return not (getattr(config.option, "usepdb", False) or getattr(config.option, "trace", False))


def pins_frames(item: pytest.Item) -> bool:
    """Whether the frames of a failed test stay alive because a debugger may want them."""
    return not may_clear_frames(item.config) and next(_kept_exceptions(item), None) is not None


def let_go_of_memory(item: pytest.Item, holds_memory: HoldsMemory, spared: frozenset[int]) -> None:
    """Let go of the frames of a test that failed, and of those values that hold memory.

    Args:
        item: the test.
        holds_memory: tells which values do.
        spared: frames (by `id`) that a live fixture's error still needs.
    """
    for values in _namespaces(item):
        for name, value in list(values.items()):
            if not isinstance(value, _PLAIN) and holds_memory(value):
                del values[name]
    if may_clear_frames(item.config):
        for kept in _kept_exceptions(item):
            clear_frames(kept, spared)


def let_go_of_all(item: pytest.Item, spared: frozenset[int]) -> None:
    """Let go of everything that is kept of a test, once its last report is made.

    Args:
        item: the test.
        spared: frames (by `id`) that a live fixture's error still needs.
    """
    values = getattr(item, "funcargs", None)
    if isinstance(values, dict):  # runtestprotocol() drops them too, a little later
        values.clear()
    # The instance of a plain test class lives as long as its item: to the end of the session (pytest 11374, 12198).
    # Both names are set anew when somebody asks for them.
    if getattr(item, "_instance", None) is not None:
        del item._instance  # type: ignore[attr-defined]
        item._obj = None  # type: ignore[attr-defined]
    elif not hasattr(item, "_instance") and getattr(getattr(item, "_obj", None), "__self__", None) is not None:
        item._obj = None  # type: ignore[attr-defined]  # before pytest 8.2
    if may_clear_frames(item.config):
        for kept in _kept_exceptions(item):
            clear_frames(kept, spared)


def clear_frames(error: BaseException | None, spared: frozenset[int] = frozenset()) -> None:
    """Empty the frames behind an exception and behind everything it was raised from or together with."""
    for raised in _chain(error):
        for frame in _frames(raised.__traceback__):
            if id(frame) not in spared:
                _clear(frame)


def fresh_request(item: pytest.Item) -> None:
    """Make an item ready to be set up again, as pytest itself does before a re-run."""
    initialise = getattr(item, "_initrequest", None)
    if initialise is not None:
        initialise()


def fixture_value(fixturedef: pytest.FixtureDef[Any]) -> list[Any]:
    """Return a live fixture's value as a list of one; empty where it has none or its setup failed."""
    cached = getattr(fixturedef, "cached_result", None)
    return [] if cached is None or cached[2] is not None else [cached[0]]


def fixture_error_frames(fixturedef: pytest.FixtureDef[Any]) -> Iterator[int]:
    """Give the frames (by `id`) of the error with which a fixture's setup failed: every later test raises it again."""
    cached = getattr(fixturedef, "cached_result", None)
    kept = cached[2] if cached is not None else None
    for part in kept if isinstance(kept, tuple) else (kept,):
        if isinstance(part, BaseException):
            for raised in _chain(part):
                yield from map(id, _frames(raised.__traceback__))
        elif isinstance(part, TracebackType):
            yield from map(id, _frames(part))


def _namespaces(item: pytest.Item) -> Iterator[dict[str, Any]]:
    values = getattr(item, "funcargs", None)
    if isinstance(values, dict):
        yield values
    instance = getattr(item, "_instance", None) or getattr(getattr(item, "_obj", None), "__self__", None)
    if instance is None and item.config.pluginmanager.has_plugin("flaky"):
        instance = _instance_of_flaky()
    # Of a plain function it may be the module, whose names are not the test's.
    if instance is not None and type(instance) is getattr(item, "cls", None):
        yield getattr(instance, "__dict__", {})


def _instance_of_flaky() -> object:
    # Flaky 3.8 has the instance in a local variable around the whole protocol, also when unittest has dropped it.
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "pytest_runtest_protocol" and "test_instance" in frame.f_code.co_varnames:
            return frame.f_locals.get("test_instance")
        frame = frame.f_back
    return None


def _kept_exceptions(item: pytest.Item) -> Iterator[BaseException]:
    for name in ("last_value", "last_exc"):
        kept = getattr(sys, name, None)
        if isinstance(kept, BaseException):
            yield kept
    # unittest's, and those that rerunfailures 16.0 and 16.7 keep to evaluate a condition.
    yield from _values_of(getattr(item, "_excinfo", None))
    yield from _values_of(getattr(item, "_rerun_condition_excinfos", None))
    yield from _values_of([getattr(item, "excinfo", None)])  # flaky's
    flaky = item.config.pluginmanager.get_plugin("flaky")
    calls = getattr(flaky, "_call_infos", None)
    if isinstance(calls, dict):
        for call in dict(calls.get(item) or {}).values():
            yield from _values_of([getattr(call, "excinfo", None)])


def _values_of(excinfos: Any) -> Iterator[BaseException]:
    found: Iterable[Any] = excinfos.values() if isinstance(excinfos, dict) else excinfos or ()
    for excinfo in found:
        value = getattr(excinfo, "value", None)
        if isinstance(value, BaseException):
            yield value
        elif isinstance(excinfo, (list, tuple)):
            yield from _values_of(excinfo)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    pending = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [current.__cause__, current.__context__]
        grouped = getattr(current, "exceptions", ()) if type(current).__name__.endswith("ExceptionGroup") else ()
        pending += [inner for inner in grouped if isinstance(inner, BaseException)]


def _frames(traceback: TracebackType | None) -> Iterator[FrameType]:
    """Give the frames of a traceback, and those that had called them: a frame keeps its caller."""
    seen: set[int] = set()
    while traceback is not None:
        frame: FrameType | None = traceback.tb_frame
        while frame is not None and id(frame) not in seen:
            seen.add(id(frame))
            yield frame
            frame = frame.f_back
        traceback = traceback.tb_next


def _clear(frame: FrameType) -> None:
    # Clearing a suspended generator closes it: a fixture that yields inside `except` would end.
    if frame.f_code.co_flags & _GENERATORS and _is_suspended(frame):
        return
    try:
        frame.clear()
    except RuntimeError:  # still running
        return
    if sys.version_info < (3, 13):
        # Until 3.12 a frame whose locals were once read keeps a copy, and pytest reads them for its report.
        frame.f_locals  # noqa: B018


def _is_suspended(frame: FrameType) -> bool:
    """Whether a generator's or coroutine's frame stands at a yield, so that it may go on; True on doubt."""
    if frame.f_lasti < 0:
        return True
    code = frame.f_code.co_code
    # Up to 3.10, one that waits in `yield from` or `await` stands just before that instruction.
    return code[frame.f_lasti] in _YIELDS or code[frame.f_lasti + 2 : frame.f_lasti + 3] == _YIELD_FROM
