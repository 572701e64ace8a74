"""What pytest and its plugins keep alive of a test, and how it is let go. Private names of theirs are here alone.

What is told of a failure stays the same: reports are made by then, and texts are not touched. First only what holds
memory is let go, so that others still find the rest (a browser page, a driver) while they make their report.
"""

from __future__ import annotations

import dis
import gc
import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from types import AsyncGeneratorType, FrameType, FunctionType, GeneratorType, TracebackType
from typing import Any

import pytest

HoldsMemory = Callable[[object], bool]
"""Tells whether tensors or arrays are reachable from a value."""

_PLAIN = (str, bytes, int, float, bool, complex, type(None))
_YIELDS = {dis.opmap[name] for name in ("YIELD_VALUE", "YIELD_FROM", "RETURN_GENERATOR") if name in dis.opmap}
_YIELD_FROM = bytes([dis.opmap["YIELD_FROM"]]) if "YIELD_FROM" in dis.opmap else None
_OF_FLAKY = "test_instance"
"""The local variable in which flaky has the instance of a test's class."""
_HAS_FIRST_INSTANCES = pytest.version_tuple < (8, 1)
_GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def may_clear_frames(config: pytest.Config) -> bool:
    """Whether nobody is going to look at a failed test's frames: a debugger would find them empty."""
    # `option` rather than getoption(): this is asked after every test.
    return not (getattr(config.option, "usepdb", False) or getattr(config.option, "trace", False))


def pins_frames(item: pytest.Item) -> bool:
    """Whether the frames of a failed test stay alive because a debugger may want them."""
    return not may_clear_frames(item.config) and next(_kept_exceptions(item), None) is not None


def let_go_of_memory(
    item: pytest.Item, holds_memory: HoldsMemory, spared: frozenset[int], *, is_reported: bool
) -> None:
    """Let go of the frames of a test that failed, and of those values that hold memory.

    Args:
        item: the test.
        holds_memory: tells which values do.
        spared: frames (by `id`) that a live fixture's error still needs.
        is_reported: whether its last report is made, so that nobody asks for its instance any more.
    """
    ended = {name for name, _ in _ended_fixtures(item)}  # these go one by one, so that it is seen what was whose
    _empty(getattr(item, "funcargs", None), holds_memory, but=ended)
    _empty_doctest(item, holds_memory)
    clear_kept_frames(item, spared)
    if is_reported:
        _drop_first_instance(item)
        if holds_memory(getattr(_instance(item), "__dict__", None)):
            _drop_instance(item)  # else it stays: re-runs of the test may find on it what they left there


def let_go_of_ended(item: pytest.Item, is_due: HoldsMemory = lambda _: True) -> Iterator[int]:
    """Let go of the values of wider fixtures that have come to their end, one by one.

    Args:
        item: the last test that they were there for.
        is_due: tells which of the values go; all of them, once the test's last report is made.

    Yields:
        The `id` of the definition of each, once its value is gone.
    """
    values: Any = getattr(item, "funcargs", None)
    for name, definition in _ended_fixtures(item) if isinstance(values, dict) else ():
        if name in values and is_due(values[name]):
            del values[name]
            yield id(definition)


def _ended_fixtures(item: pytest.Item) -> Iterator[tuple[str, pytest.FixtureDef[Any]]]:
    found = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for name, definitions in dict(found).items():
        if definitions[-1].scope != "function" and definitions[-1].cached_result is None:
            yield name, definitions[-1]


def let_go_of_all(item: pytest.Item, spared: frozenset[int]) -> None:
    """Let go of what else is kept of a test, once its last report is made.

    Args:
        item: the test.
        spared: frames (by `id`) that a live fixture's error still needs.
    """
    values = getattr(item, "funcargs", None)
    if isinstance(values, dict):  # runtestprotocol() drops them too, a little later
        values.clear()
    clear_kept_frames(item, spared)
    if may_clear_frames(item.config):
        _drop_errors(item)
    _empty_doctest(item, lambda _: True)
    _drop_instance(item)


def clear_frames(error: BaseException | None, spared: frozenset[int] = frozenset()) -> None:
    """Empty the frames behind an exception and behind everything it was raised from or together with."""
    for raised in _chain(error):
        for frame in _frames(raised.__traceback__):
            if id(frame) not in spared:
                _clear(frame)


def fixture_value(fixturedef: pytest.FixtureDef[Any]) -> list[Any]:
    """Return a live fixture's value, and what its function waits with; empty where its setup failed."""
    cached = getattr(fixturedef, "cached_result", None)
    if cached is None or cached[2] is not None:
        return []
    return [cached[0], *_suspended_functions(fixturedef)]


def _suspended_functions(fixturedef: pytest.FixtureDef[Any]) -> Iterator[Any]:
    """Give the generators that wait at the `yield` of a fixture: their local variables live until it ends."""
    for finalizer in getattr(fixturedef, "_finalizers", ()):
        parts: Iterable[Any] = finalizer.args if type(finalizer) is partial else ()
        if type(finalizer) is FunctionType:  # pytest-asyncio's
            parts = gc.get_referents(*(finalizer.__closure__ or ()))
        yield from (part for part in parts if type(part) in (GeneratorType, AsyncGeneratorType))


def fixture_error_frames(fixturedef: pytest.FixtureDef[Any]) -> Iterator[FrameType]:
    """Give the frames of the error with which a fixture's setup failed: every later test raises it again."""
    cached = getattr(fixturedef, "cached_result", None)
    kept = cached[2] if cached is not None else None
    for part in kept if isinstance(kept, tuple) else (kept,):
        if isinstance(part, BaseException):
            for raised in _chain(part):
                yield from _frames(raised.__traceback__)
        elif isinstance(part, TracebackType):
            yield from _frames(part)


def clear_error_of(fixturedef: pytest.FixtureDef[Any], spared: frozenset[int]) -> None:
    """Empty the frames of the error with which a fixture's setup failed, now that no test raises it any more.

    The tests that met it spared them, and may be kept with it to the end of the session.
    """
    for frame in fixture_error_frames(fixturedef):
        if id(frame) not in spared:
            _clear(frame)


def _empty(values: Any, holds_memory: HoldsMemory, *, but: Collection[str] = ()) -> None:
    for name, value in list(values.items()) if isinstance(values, dict) else ():
        if name not in but and not isinstance(value, _PLAIN) and holds_memory(value):
            del values[name]


def _empty_doctest(item: pytest.Item, holds_memory: HoldsMemory) -> None:
    """Drop the variables of a doctest that failed; its module's own stay, for it may run again."""
    names = getattr(getattr(item, "dtest", None), "globs", None)
    if not isinstance(names, dict):
        return
    own = vars(sys.modules.get(str(names.get("__name__"))) or object)
    values = {name: value for name, value in names.items() if own.get(name) is not value}
    _empty(values, holds_memory)
    for name in [name for name, value in names.items() if own.get(name) is not value and name not in values]:
        del names[name]


def _instance(item: pytest.Item) -> object:
    """The instance of a test's class; for a plain function there is none."""
    found = getattr(item, "_instance", None) or getattr(getattr(item, "_obj", None), "__self__", None)
    frame = _frame_of_flaky(item) if found is None else None  # unittest has dropped its own by then
    if frame is not None:
        found = frame.f_locals.get(_OF_FLAKY)
    return found if type(found) is getattr(item, "cls", None) else None


def _drop_instance(item: pytest.Item) -> None:
    # It lives as long as its item: to the end of the session (pytest 11374, 12198). Both names are set anew when
    # somebody asks for them.
    if _instance(item) is None:
        return
    frame = _frame_of_flaky(item)
    if frame is not None:
        _forget_local(frame, _OF_FLAKY)
    if hasattr(item, "_instance"):
        del item._instance
    item._obj = None  # type: ignore[attr-defined]


def _drop_first_instance(item: pytest.Item) -> None:
    """Let go of the first instance of a class of unittest: before pytest 8.1, what waits to end the class has it.

    It has no more use for it: what ends the class is called on the class.
    """
    if _HAS_FIRST_INSTANCES:
        for name, definitions in dict(getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})).items():
            if not name.startswith("_unittest_setUpClass_fixture_"):
                continue
            finalizers = getattr(definitions[-1], "_finalizers", [])
            for index, finalizer in enumerate(finalizers):
                if type(finalizer) is partial and type(finalizer.args[-1]) is GeneratorType:
                    function, generator = finalizer.args
                    finalizers[index] = partial(finalizer.func, getattr(function, "__func__", function), generator)
                    _forget_local(generator.gi_frame, "self")


def _frame_of_flaky(item: pytest.Item) -> FrameType | None:
    """The frame of flaky 3.8 around the whole protocol: it has the instance too, and has no more use for it."""
    frame = sys._getframe() if item.config.pluginmanager.has_plugin("flaky") else None
    while frame is not None:
        if frame.f_code.co_name == "pytest_runtest_protocol" and _OF_FLAKY in frame.f_code.co_varnames:
            return frame
        frame = frame.f_back
    return None


def _forget_local(frame: FrameType, name: str) -> None:
    frame.f_locals[name] = None
    if sys.version_info < (3, 13):  # what is read of a frame is a copy, as PEP 667 tells
        import ctypes

        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))


def clear_kept_frames(item: pytest.Item, spared: frozenset[int]) -> None:
    """Empty the frames of the errors that pytest and its plugins keep of a test."""
    if may_clear_frames(item.config):
        for kept in _kept_exceptions(item):
            clear_frames(kept, spared)


def _drop_errors(item: pytest.Item) -> None:
    """Drop the errors themselves: one may hold a tensor, in an attribute or among its arguments."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):  # pytest drops them at the next call
        if hasattr(sys, name):
            delattr(sys, name)
    kept = getattr(item, "_excinfo", None)
    if isinstance(kept, list):
        kept.clear()
    mark = item.get_closest_marker("flaky")
    kept = getattr(item, "_rerun_condition_excinfos", None)
    if isinstance(kept, dict) and (mark is None or "condition" not in mark.kwargs):  # what rerunfailures keeps them for
        kept.clear()
    flaky = _flaky(item)
    # Of a test that it runs again, flaky 3.8 tells the error itself; of others it keeps it to the end of the run.
    if flaky is not None and not flaky._has_flaky_attributes(item):
        for excinfo in _excinfos_of_flaky(item, flaky):
            if getattr(excinfo, "_excinfo", None) is not None:
                excinfo._traceback = excinfo.traceback[:0]
                excinfo._excinfo = (excinfo.type, None, None)


def _kept_exceptions(item: pytest.Item) -> Iterator[BaseException]:
    for name in ("last_value", "last_exc"):
        kept = getattr(sys, name, None)
        if isinstance(kept, BaseException):
            yield kept
    # unittest's, and those that rerunfailures 16.0 and 16.7 keep to evaluate a condition.
    yield from _values_of(getattr(item, "_excinfo", None))
    yield from _values_of(getattr(item, "_rerun_condition_excinfos", None))
    flaky = _flaky(item)
    yield from _values_of(_excinfos_of_flaky(item, flaky) if flaky is not None else ())
    yield from _kept_by_anyio()


def _flaky(item: pytest.Item) -> Any:
    """The plugin of flaky, where it is there."""
    plugin = item.config.pluginmanager.get_plugin("flaky")
    return getattr(plugin, "PLUGIN", plugin)


def _excinfos_of_flaky(item: pytest.Item, flaky: Any) -> Iterator[Any]:
    yield getattr(item, "excinfo", None)
    calls = getattr(flaky, "_call_infos", None)
    if isinstance(calls, dict):
        yield from (getattr(call, "excinfo", None) for call in dict(calls.get(item) or {}).values())


def _kept_by_anyio() -> Iterator[BaseException]:
    """Give the error (also the end of a generator) by which anyio 4 ended the last coroutine that it ran.

    A task runs all of them for as long as a wider fixture lives, and has the latest in its local variables until the
    next one comes: with the frames of a fixture of one test's own.
    """
    runner = getattr(sys.modules.get("anyio.pytest_plugin"), "_current_runner", None)
    if runner is None:
        return
    task = getattr(runner, "_runner_task", None)
    # With trio nothing leads to the task but a walk through the heap.
    tasks = [task.get_coro()] if task is not None else list(filter(_is_anyios, gc.get_referrers(runner)))
    # Not by its `f_locals`: until 3.12 that makes a copy, which would then keep them.
    for kept in gc.get_referents(*tasks, *(getattr(task, "cr_frame", None) for task in tasks)):
        for answer in kept if isinstance(kept, list) else (kept,):
            error = getattr(answer, "error", None) or getattr(answer, "_exception", None)
            if isinstance(error, BaseException):
                yield error


def _is_anyios(value: object) -> bool:
    code = getattr(value, "cr_code", None) or getattr(value, "f_code", None)
    return getattr(code, "co_name", "") == "_run_tests_and_fixtures"


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
