"""What pytest and xdist keep to themselves, and a test that is run again or a worker that is replaced needs.

What they keep alive of a test is in `retention.py`. Private names of theirs are in these two files alone.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import pytest


def fresh_request(item: pytest.Item) -> None:
    """Make an item ready to be set up again, as pytest itself does before a re-run."""
    initialise = getattr(item, "_initrequest", None)
    if initialise is not None:
        initialise()


def tears_class_down(fixturedef: pytest.FixtureDef[Any], cls: type) -> bool:
    """Whether a fixture is that which pytest makes of a class's own methods, and one of them ends what tests set on it.

    Args:
        fixturedef: of a fixture.
        cls: the class of its tests.
    """
    if fixturedef.argname.startswith("_xunit_setup_class_fixture_"):
        return getattr(cls, "teardown_class", None) is not None
    if not fixturedef.argname.startswith("_unittest_setUpClass_fixture_"):
        return False
    home = next((base for base in cls.__mro__ if "tearDownClass" in vars(base)), None)
    return getattr(home, "__module__", "unittest.case") != "unittest.case" or bool(getattr(cls, "_class_cleanups", ()))


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
    try:
        skipped = pytest.skip.Exception(reason, _use_item_location=True)
    except Exception:  # what pytest keeps to itself may change
        skipped = pytest.skip.Exception(reason)
    raise skipped


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
