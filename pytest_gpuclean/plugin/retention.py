"""What pytest and its plugins keep alive of a test, and how it is let go. Private names of theirs are here alone.

What is told of a failure stays the same: reports are made by then, and texts are not touched.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any

import pytest

_PLAIN = (str, bytes, int, float, bool, complex, type(None))
_GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def may_clear_frames(config: pytest.Config) -> bool:
    """Whether nobody is going to look at a failed test's frames: a debugger would find them empty."""
    # `option` rather than getoption(): this is asked after every test.
    return not (getattr(config.option, "usepdb", False) or getattr(config.option, "trace", False))


def let_go(item: pytest.Item, error: BaseException | None = None) -> None:
    """Let go of what is kept of a test after its teardown.

    Args:
        item: the test.
        error: what its teardown raised, if it did and the report is made.
    """
    _drop_fixture_values(item)
    _drop_instance(item)
    if may_clear_frames(item.config):
        for kept in (error, *_kept_exceptions(item)):
            clear_frames(kept)


def pins_frames(item: pytest.Item) -> bool:
    """Whether the frames of a failed test stay alive because a debugger may want them."""
    return not may_clear_frames(item.config) and next(_kept_exceptions(item), None) is not None


def clear_frames(error: BaseException | None) -> None:
    """Empty the frames behind an exception and behind everything it was raised from or together with."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        for frame, position in _frames(current.__traceback__):
            _clear(frame, position)
        pending += [current.__cause__, current.__context__]
        grouped = getattr(current, "exceptions", ()) if type(current).__name__.endswith("ExceptionGroup") else ()
        pending += [inner for inner in grouped if isinstance(inner, BaseException)]


def fresh_request(item: pytest.Item) -> None:
    """Make an item ready to be set up again, as pytest itself does before a re-run."""
    initialise = getattr(item, "_initrequest", None)
    if initialise is not None:
        initialise()


def fixture_value(fixturedef: pytest.FixtureDef[Any]) -> list[Any]:
    """Return a live fixture's value as a list of one; empty where it has none or its setup failed."""
    cached = getattr(fixturedef, "cached_result", None)
    return [] if cached is None or cached[2] is not None else [cached[0]]


def _drop_fixture_values(item: pytest.Item) -> None:
    # runtestprotocol() drops them too, but only after every teardown hook.
    values = getattr(item, "funcargs", None)
    if isinstance(values, dict):
        for name in [name for name, value in values.items() if not isinstance(value, _PLAIN)]:
            del values[name]


def _drop_instance(item: pytest.Item) -> None:
    # The instance of a plain test class lives as long as its item: to the end of the session (pytest 11374, 12198).
    # Both names are set anew when somebody asks for them.
    if item.config.pluginmanager.has_plugin("flaky"):
        instance = _instance_of_flaky()
        if type(instance) is getattr(item, "cls", None):  # for a plain function it is the module
            _empty(instance)
    if getattr(item, "_instance", None) is not None:
        del item._instance  # type: ignore[attr-defined]
        item._obj = None  # type: ignore[attr-defined]
    elif getattr(getattr(item, "_obj", None), "__self__", None) is not None and not hasattr(item, "_instance"):
        item._obj = None  # type: ignore[attr-defined]  # before pytest 8.2


def _instance_of_flaky() -> object:
    # Flaky 3.8 has the instance in a local variable around the whole protocol, so dropping the item's is not enough.
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "pytest_runtest_protocol" and "test_instance" in frame.f_code.co_varnames:
            return frame.f_locals.get("test_instance")
        frame = frame.f_back
    return None


def _empty(instance: object) -> None:
    attributes = getattr(instance, "__dict__", {})
    for name in [name for name, value in attributes.items() if not isinstance(value, _PLAIN)]:
        del attributes[name]


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
            yield from _values_of([part for part in excinfo if part is not excinfo])


def _frames(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lasti
        traceback = traceback.tb_next


def _clear(frame: FrameType, position: int) -> None:
    # Clearing a suspended generator closes it: a fixture that yields inside `except` would end. One that ended by
    # this very exception stands where the traceback says.
    if frame.f_code.co_flags & _GENERATORS and frame.f_lasti != position:
        return
    try:
        frame.clear()
    except RuntimeError:  # still running
        return
    if sys.version_info < (3, 13):
        # Until 3.12 a frame whose locals were once read keeps a copy, and pytest reads them for its report.
        frame.f_locals  # noqa: B018
