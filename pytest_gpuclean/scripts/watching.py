"""`watch()`: what is started or allocated inside is the script's own, and is given back at the end."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, cast, overload

from pytest_gpuclean.cleanup.callables import CallableCleaner
from pytest_gpuclean.cleanup.interface import Cleaner
from pytest_gpuclean.model.cleanup import CleanupResult, Level
from pytest_gpuclean.model.memory import Snapshot
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.scripts.own import OwnProcesses
from pytest_gpuclean.scripts.session import Flow, Session, flow_here, session
from pytest_gpuclean.scripts.steps import OwnStep, SettleStep
from pytest_gpuclean.scripts.telling import Teller
from pytest_gpuclean.units import parse_choice

Function = TypeVar("Function", bound=Callable[..., Any])
_LEVELS = ("quick", "comprehensive")
_SETTLE_SECONDS = 5.0


class Watch:
    """What `watch()` gives: a context manager, and a decorator that opens one for each call.

    Args:
        name: what it is called where it is told.
        level: of the cleanup at its end.
        verbose: whether that is printed.
    """

    def __init__(self, name: str, level: Level, verbose: bool) -> None:
        self.name = name
        self.level = level
        self.verbose = verbose
        self.before = Snapshot()
        """What was in use when it began."""
        self.after = Snapshot()
        """What was in use after the cleanup at its end."""
        self.result: CleanupResult | None = None
        """What that cleanup did, step by step; None before the end."""
        self.left: tuple[LeftProcess, ...] = ()
        """The processes that were left at the end, with what became of them."""
        self.own: OwnProcesses | None = None
        self.flow: Flow = (0, 0)
        self.is_closed = True
        self._session: Session | None = None
        self._pid = 0

    def disown(self, pid: int) -> None:
        """Let a process go on that was started inside, with what is below it.

        Args:
            pid: its number.

        Raises:
            ValueError: where it is no process that was started inside.
        """
        if self.own is None or self.is_closed:
            raise ValueError(f"{pid!r} is no process that this watch() has seen started")
        self.own.disown(pid)
        if self._session is not None:
            self._session.disown(pid)

    def __enter__(self) -> Watch:  # noqa: PYI034  Self takes Python 3.11
        if not self.is_closed:
            raise RuntimeError("this watch() is open already; write watch() anew for one inside of another")
        self._session, self._pid = session(), os.getpid()
        self.flow, self.is_closed, self.own = flow_here(), False, None
        self._session.enter(self, lambda: OwnProcesses(self.name, is_whole=True))
        self.before = self._session.gauge.read()
        self._session.renew(self.before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        here = self._session
        if here is None or os.getpid() != self._pid:  # a fork of the script: all of it is the script's business
            return
        processes = OwnStep("processes", self.own if here.may_stop(self) else None)
        steps: list[Cleaner] = [
            *map(CallableCleaner, here.take_callables()),
            processes,
            *here.cleaners,
            SettleStep(here, _SETTLE_SECONDS, [processes]),
        ]
        tell = Teller(self.verbose)
        title = f"end of {self.name}{f' by {kind.__name__}' if kind is not None else ''}"
        try:
            self.result = here.clean(steps, self.level, ends_run=True)
            self.left = tuple(processes.left)
            self.after = here.gauge.read()
            tell.result(title, self.result)
        except Exception as trouble:  # of our own: it hides no error of the script's
            tell(f"gpuclean: {title} was broken off: {type(trouble).__name__}: {trouble}")
        finally:
            here.leave(self)

    def __call__(self, function: Function) -> Function:
        """Open one for each call of a function."""
        return cast("Function", _wrapped(function, lambda: Watch(self.name, self.level, self.verbose)))


@overload
def watch(function: Function, /) -> Function: ...


@overload
def watch(*, name: str = "watch", level: Level = "quick", verbose: bool = True) -> Watch: ...


def watch(
    function: Function | None = None, /, *, name: str = "watch", level: Level = "quick", verbose: bool = True
) -> Function | Watch:
    """Make what is started or allocated inside the script's own, as a context manager or as a decorator.

    At the end, processes that were started inside and still run are stopped, and memory is given back. Functions such
    as `cleanup_between_runs` do the same in between. A `watch()` inside of another one has what was started since.
    What is to go on is started outside, bears `GPUCLEAN_KEEP=1`, or is disowned: `run.disown(pid)` on what `with
    watch() as run` gives.

    Args:
        function: where it is used as a bare decorator.
        name: what it is called in what is printed.
        level: of the cleanup at its end, `quick` or `comprehensive`.
        verbose: whether each step of that is printed.

    Raises:
        ValueError: where the level is neither.
    """
    parse_choice(level, _LEVELS, "watch(): level")
    if function is None:
        return Watch(name, level, verbose)
    if not callable(function):
        raise TypeError(f"watch(): {function!r} is no function; write watch(name=...)")
    title = getattr(function, "__qualname__", "watch")
    return cast("Function", _wrapped(function, lambda: Watch(title, level, verbose)))


def _wrapped(function: Callable[..., Any], make: Callable[[], Watch]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function):
        raise TypeError(f"watch(): {function!r} is an asynchronous generator; write `with watch():` in it")
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with make():
                return await function(*args, **kwargs)

        return awaited
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def yielding(*args: Any, **kwargs: Any) -> Any:
            with make():
                return (yield from function(*args, **kwargs))

        return yielding

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with make():
            return function(*args, **kwargs)

    return called
