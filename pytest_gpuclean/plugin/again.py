"""Running a test again that ran out of memory, while its report is made.

There the outcome is known as pytest itself knows it (of a unittest case, or of one that is marked xfail), and nobody
has been told yet. The hooks of each phase are called as the runner does, so plugins see a test that runs again; the
test protocol is taken from nobody, and whoever runs tests again by it (rerunfailures, flaky, forked) comes after.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pytest

from pytest_gpuclean.memory.interface import first_line
from pytest_gpuclean.plugin import internals, retention
from pytest_gpuclean.plugin.clock import Clock
from pytest_gpuclean.plugin.guard import Guard

_HAS_SUBTESTS = pytest.StashKey[bool]()
Phase = Literal["setup", "call", "teardown"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a further run of a test came to."""

    report: pytest.TestReport
    """It takes the place of the one that said that memory ran out."""
    notes: tuple[str, ...]
    """What went wrong on the way without being the outcome."""


class Again:
    """Tears a test down, cleans, and runs it once more."""

    def __init__(
        self, clean: Callable[[], object], error_frames: Callable[[], Iterable[int]], clock: Clock, guard: Guard
    ) -> None:
        """Set it up.

        Args:
            clean: cleans comprehensively.
            error_frames: gives the frames (by `id`) of errors that pytest will raise again.
            clock: has each run's timeout.
            guard: takes in the trouble of what is done between two runs.
        """
        self._clock = clock
        self._clean = clean
        self._error_frames = error_frames
        self._guard = guard
        self._runs: pytest.Item | None = None

    def is_running(self, item: pytest.Item) -> bool:
        """Whether a test runs again right now."""
        return self._runs is item

    def is_possible(self, item: pytest.Item) -> bool:
        """Whether a test can be run again now: not inside its call, nor where a debugger wants to look at it."""
        return not (internals.is_in_call(item) or item.stash.get(_HAS_SUBTESTS, False)) and retention.may_clear_frames(
            item.config
        )

    def note_report(self, item: pytest.Item) -> None:
        """Note that a report of the test's call is being made: one inside of the call is of a subtest.

        Subtests have been told then, and would be so twice.
        """
        if internals.is_in_call(item):
            item.stash[_HAS_SUBTESTS] = True

    def run(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Attempt:
        """Run a test again.

        Args:
            item: the test.
            call: the phase that raised: `setup`, or `call` after a setup. It is changed to the new one, as others
                look at it once more: whether to interact, whether to run again.
        """
        self._runs = item
        try:
            with contextlib.ExitStack() as timed:
                notes = self._end(item, call)
                with self._guard:
                    timed.enter_context(self._clock.anew())
                report, latest = self._bring_up(item, call.when)
        finally:
            self._runs = None
        call.excinfo = latest.excinfo
        call.start, call.stop, call.duration = latest.start, latest.stop, latest.duration
        return Attempt(report, notes)

    def _end(self, item: pytest.Item, call: pytest.CallInfo[None]) -> tuple[str, ...]:
        spared = frozenset(self._error_frames())
        # The test itself is what comes next: what is wider than it stays up.
        more = {"nextitem": internals.twin(item)}
        retention.clear_frames(call.excinfo.value if call.excinfo is not None else None, spared)
        call.excinfo = None
        _, ended = self._phase(item, "teardown", **more)  # a leak is told by itself
        notes = [f"the teardown before that failed: {first_line(ended.excinfo.value)}"] if ended.excinfo else []

        # From here on it is set up again, whatever fails: pytest is about to tear it down once more.
        with self._guard:
            notes += [f"a fixture that had failed did not end: {text}" for text in internals.end_failed_fixtures(item)]
        with self._guard:
            retention.let_go_of_all(item, spared)
        with self._guard:
            internals.fresh_request(item)
        with self._guard:
            self._clean()
        return tuple(notes)

    def _bring_up(self, item: pytest.Item, last: str) -> tuple[pytest.TestReport, pytest.CallInfo[None]]:
        report, call = self._phase(item, "setup")
        if last == "setup" or report.outcome != "passed":
            return report, call
        return self._phase(item, "call")

    def _phase(
        self, item: pytest.Item, when: Phase, **more: pytest.Item
    ) -> tuple[pytest.TestReport, pytest.CallInfo[None]]:
        hook = getattr(item.ihook, f"pytest_runtest_{when}")
        call = pytest.CallInfo.from_call(
            partial(hook, item=item, **more), when=when, reraise=(pytest.exit.Exception, KeyboardInterrupt)
        )
        return item.ihook.pytest_runtest_makereport(item=item, call=call), call
