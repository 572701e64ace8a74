"""What pytest and its plugins keep alive of a test, and how it is let go. Private names of theirs are here alone.

What is told of a failure stays the same: reports are made by then, and texts are not touched. First only what holds
memory is let go, so that others still find the rest (a browser page, a driver) while they make their report.
"""

from __future__ import annotations

import contextlib
import copy
import dis
import gc
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, MethodType, TracebackType
from typing import Any, NoReturn

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
    _empty(getattr(item, "funcargs", None), holds_memory)
    _empty_doctest(item, holds_memory)
    clear_kept_frames(item, spared)
    if is_reported and _empty_instance_of_flaky(item, holds_memory):
        return
    if is_reported and holds_memory(getattr(_instance(item), "__dict__", None)):
        _drop_instance(item)  # else it stays: re-runs of the test may find on it what they left there


def let_go_of_ended(item: pytest.Item) -> None:
    """Let go of the values of wider fixtures that have come to their end, once the test's last report is made."""
    values: Any = getattr(item, "funcargs", None)
    found = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for name, definitions in dict(found).items() if isinstance(values, dict) else ():
        definition = definitions[-1]
        if definition.scope != "function" and definition.cached_result is None:
            values.pop(name, None)


def let_go_of_all(item: pytest.Item, spared: frozenset[int]) -> None:
    """Let go of everything that is kept of a test, once its last report is made.

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
    if not _empty_instance_of_flaky(item, lambda _: True):
        _drop_instance(item)


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


@contextlib.contextmanager
def unheard(item: pytest.Item) -> Iterator[None]:
    """Let nobody hear of what a further run of a test tells by itself: its subtests, and what pytest-benchmark books.

    Args:
        item: the test; while the block runs, it is of a class of its own.
    """
    kind = type(item)
    measured = getattr(getattr(item.config, "_benchmarksession", None), "benchmarks", None)
    count = len(measured) if isinstance(measured, list) else 0
    make: Any = type(kind)
    with contextlib.suppress(TypeError):  # an item whose class cannot be derived from
        item.__class__ = make(kind.__name__, (_Unheard, kind), {"__slots__": (), "__module__": kind.__module__})
    try:
        yield
    finally:
        item.__class__ = kind
        if isinstance(measured, list):
            del measured[count:]


class _Unheard:
    __slots__ = ()

    @property
    def ihook(self) -> Any:
        return _WithoutReports(super().ihook)  # type: ignore[misc]


class _WithoutReports:
    """Hooks, less those by which a subtest is told; pytest and pytest-subtests call them on its item."""

    def __init__(self, hooks: Any) -> None:
        self._hooks = hooks

    def __getattr__(self, name: str) -> Any:
        if name in ("pytest_runtest_logreport", "pytest_exception_interact"):
            return lambda **_: []
        return getattr(self._hooks, name)


def skip_at_item(reason: str) -> NoReturn:
    """Skip the test that is being set up, with its own line as the place and not one of ours."""
    raise pytest.skip.Exception(reason, _use_item_location=True)


def twin(item: pytest.Item) -> pytest.Item:
    """Make another item of the same test: torn down for it, a test goes down alone, and what is wider stays up."""
    made = copy.copy(item)
    # Else it would keep what the test is torn down for.
    for name in ("_instance", "_obj", "_testcase", "_explicit_tearDown", "_excinfo"):
        vars(made).pop(name, None)
    if hasattr(made, "funcargs"):
        made.funcargs = {}
    return made


def is_in_call(item: pytest.Item) -> bool:
    """Whether a test's call is still running below us: then a report is being made of one of its subtests."""
    runner = item.config.pluginmanager.get_plugin("runner")
    code = getattr(getattr(runner, "pytest_runtest_call", None), "__code__", None)
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        # A run inside of a test of another run has that one's frames below it too.
        if frame.f_code is code and frame.f_locals.get("item") is item:
            return True
        frame = frame.f_back
    return False


def end_failed_fixtures(item: pytest.Item) -> Iterator[str]:
    """End the fixtures of a test whose setup failed, so that they come up anew; give what they raise at it.

    pytest keeps the error of one of a wider scope, and raises it again in every test of the scope.
    """
    found = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for definitions in dict(found).values():
        for definition in definitions:
            cached = getattr(definition, "cached_result", None)
            if cached is not None and cached[2] is not None:
                try:
                    definition.finish(item._request)  # type: ignore[attr-defined]
                except Exception as error:
                    yield f"{definition.argname}: {type(error).__name__}: {error}"


def replace_worker(config: pytest.Config, node: Any, *, may_start: bool) -> str:
    """Hand what a worker of pytest-xdist that has ended was still to run to a new one; say why it is not done.

    Args:
        config: of the controller.
        node: the worker; its last test is complete, and it has begun no other.
        may_start: whether another may be started; else the run ends where tests are left.
    """
    session: Any = config.pluginmanager.get_plugin("dsession")
    clone = getattr(session, "_clone_node", None)
    _prepare_scopes(session.sched, node)
    first = session.sched.remove_node(node)
    if first is not None:
        with contextlib.suppress(NotImplementedError):  # those that hand out by scope have put it back already
            session.sched.mark_test_pending(first)
    if session.shouldstop or session.sched.tests_finished:
        return ""
    if clone is None:
        reason = "this release of pytest-xdist has no way to replace a worker"
    elif not may_start:
        reason = "more workers have lost a device than --max-worker-restart allows"
    else:
        reason = ""
        session.shuttingdown = False  # all may have been handed out, and the others been told to end after that
        clone(node)
    if reason:
        session.shouldstop = f"gpuclean: {reason}"
    return reason


def _prepare_scopes(scheduler: Any, node: Any) -> None:
    """Make a scheduler that hands out by scope (xdist 3.8) ready for workers that come late.

    It would take the finished scopes of a worker up again, as work without a test, and whoever gets that waits for
    ever. It gives a late worker one scope, where a worker begins a test once it knows the next one. And it hands out
    to one that has not told its tests yet, by looking them up.
    """
    scopes = getattr(scheduler, "assigned_work", {}).get(node)
    if scopes is None:
        return
    for scope in [scope for scope, tests in scopes.items() if all(tests.values())]:
        del scopes[scope]
    if "schedule" not in vars(scheduler):
        schedule, hand_out = scheduler.schedule, scheduler._reschedule
        scheduler.schedule = lambda: (schedule(), schedule())
        scheduler._reschedule = lambda late: late in scheduler.registered_collections and hand_out(late)


def is_told_to_end(config: pytest.Config) -> bool:
    """Whether the controller has told this worker to end, so that it sends it no more tests."""
    for plugin in config.pluginmanager.get_plugins():
        queue = getattr(plugin, "torun", None)
        if queue is not None and hasattr(plugin, "nextitem_index"):
            with queue.lock() as waiting:
                return any(not isinstance(entry, int) for entry in [plugin.nextitem_index, *waiting])
    return True


def worker_pid(node: Any) -> int | None:
    """Return the process of a worker of pytest-xdist; None for one that this process has not started."""
    popen = getattr(getattr(getattr(node, "gateway", None), "_io", None), "popen", None)
    pid = getattr(popen, "pid", None)
    return pid if isinstance(pid, int) else None


def fixture_value(fixturedef: pytest.FixtureDef[Any]) -> list[Any]:
    """Return a live fixture's value, and what else pytest keeps with it; empty where its setup failed."""
    cached = getattr(fixturedef, "cached_result", None)
    if cached is None or cached[2] is not None:
        return []
    return [cached[0], *_instances_of_unittest(fixturedef)]


def _instances_of_unittest(fixturedef: pytest.FixtureDef[Any]) -> Iterator[Any]:
    # Before pytest 8.2 the generator around setUpClass has the first instance of the class in a local variable.
    for finalizer in getattr(fixturedef, "_finalizers", ()):
        for argument in getattr(finalizer, "args", ()):
            frame = getattr(argument, "gi_frame", None)
            if frame is not None and frame.f_code.co_filename.endswith("unittest.py"):
                yield getattr(frame.f_locals.get("self"), "__dict__", None)


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


def _empty(values: Any, holds_memory: HoldsMemory) -> None:
    for name, value in list(values.items()) if isinstance(values, dict) else ():
        if not isinstance(value, _PLAIN) and holds_memory(value):
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
    return found if type(found) is getattr(item, "cls", None) else None


def _drop_instance(item: pytest.Item) -> None:
    # It lives as long as its item: to the end of the session (pytest 11374, 12198). Both names are set anew when
    # somebody asks for them.
    if _instance(item) is None:
        return
    if hasattr(item, "_instance"):
        del item._instance
    item._obj = None  # type: ignore[attr-defined]


def _empty_instance_of_flaky(item: pytest.Item, holds_memory: HoldsMemory) -> bool:
    """Empty the instance that flaky has; tell whether it is flaky that runs this test."""
    if not item.config.pluginmanager.has_plugin("flaky"):
        return False
    # Flaky 3.8 has the instance in a local variable around the whole protocol, also when unittest has dropped it.
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "pytest_runtest_protocol" and "test_instance" in frame.f_code.co_varnames:
            names = frame.f_locals
            instance = names.get("test_instance")
            if type(instance) is getattr(item, "cls", None) and not _has_other_owner(instance, item, names):
                _empty(getattr(instance, "__dict__", None), holds_memory)
            return True
        frame = frame.f_back
    return False


def _has_other_owner(instance: object, item: pytest.Item, names: object) -> bool:
    own = (names, vars(item))
    return any(
        not isinstance(owner, (FrameType, MethodType)) and not any(owner is known for known in own)
        for owner in gc.get_referrers(instance)
    )


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
    calls = getattr(getattr(flaky, "PLUGIN", flaky), "_call_infos", None)
    if isinstance(calls, dict):
        for call in dict(calls.get(item) or {}).values():
            yield from _values_of([getattr(call, "excinfo", None)])
    yield from _kept_by_anyio()


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
