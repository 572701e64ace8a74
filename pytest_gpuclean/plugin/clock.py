"""The timeout of a test (pytest-timeout's) stands still while the plugin is at work: that is not the test's time.

It would end a run that only waits for memory, or raise where nobody expects it. In a further run of the test, which
pytest-timeout knows nothing of, it starts anew: a test that hangs once may hang again.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_NAME = "gpuclean-clock"


def clock_of(config: pytest.Config) -> Clock:
    """Return the clock of this process's tests."""
    clock: Clock | None = config.pluginmanager.get_plugin(_NAME)
    if clock is None:
        clock = Clock(config)
        if hasattr(config.hook, "pytest_timeout_set_timer"):
            config.pluginmanager.register(clock, _NAME)
    return clock


class Clock:
    """Hears of pytest-timeout's timers, and stops and starts them by its own hooks."""

    def __init__(self, config: pytest.Config) -> None:
        self._hook: Any = config.hook
        self._item: pytest.Item | None = None
        self._settings: Any = None
        """Of the test that runs; None where it has no timeout."""
        self._deadline = 0.0
        """Of the timer that runs; 0 where none does."""

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: Any) -> None:
        """Note that a timer begins."""
        self._item, self._settings, self._deadline = item, settings, time.monotonic() + settings.timeout

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_cancel_timer(self) -> None:
        """Note that it ends: also wherever a test fails."""
        self._deadline = 0.0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logfinish(self) -> None:
        """Forget the timeout of a test that is over: the next may have none."""
        self._item = self._settings = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let no timer run, and have it go on afterwards with what was left of it."""
        if not self._deadline:
            yield
            return
        left = self._deadline - time.monotonic()
        alarm = signal.setitimer(signal.ITIMER_REAL, 0)[0] if hasattr(signal, "setitimer") else 0.0
        if not alarm:  # a thread has the timer
            self._hook.pytest_timeout_cancel_timer(item=self._item)
        self._deadline = 0.0
        try:
            yield
        finally:
            if left > 0:
                self._go_on(left, is_alarm=alarm > 0)

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Give a further run of the test, inside of `stopped`, the whole of its timeout."""
        settings = self._settings
        if settings is None or settings.func_only:  # then pytest-timeout does it in the call
            yield
            return
        self._hook.pytest_timeout_set_timer(item=self._item, settings=settings)
        try:
            yield
        finally:
            self._hook.pytest_timeout_cancel_timer(item=self._item)

    def _go_on(self, left: float, *, is_alarm: bool) -> None:
        settings = self._settings
        if is_alarm:  # the message of the failure says the timeout as the user has set it
            self._hook.pytest_timeout_set_timer(item=self._item, settings=settings)
            signal.setitimer(signal.ITIMER_REAL, left)
        else:
            self._hook.pytest_timeout_set_timer(item=self._item, settings=settings._replace(timeout=left))
        self._settings, self._deadline = settings, time.monotonic() + left
