"""Waiting until memory is back: never a fixed sleep, and no longer than there is a reason to wait."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.05
_TELL_AFTER_SECONDS = 1.0


def wait_until(
    is_back: Callable[[], bool],
    limit_seconds: float,
    may_go_on: Callable[[], bool] = lambda: True,
    on_long_wait: Callable[[], None] = lambda: None,
    longest_pause_seconds: float = _LONGEST_PAUSE_SECONDS,
) -> bool:
    """Look until the memory is back, often at first.

    Args:
        is_back: looks once.
        limit_seconds: the upper bound.
        may_go_on: whether there is still something to wait for.
        on_long_wait: called once, after a second.
        longest_pause_seconds: how far the looks are apart at most.

    Returns:
        Whether it came back in time.
    """
    begin = time.monotonic()
    pause = _FIRST_PAUSE_SECONDS
    told = False
    while True:
        go_on = may_go_on()
        if is_back():
            return True
        waited = time.monotonic() - begin
        if waited >= limit_seconds or not go_on:
            return False
        if waited > _TELL_AFTER_SECONDS and not told:
            told = True
            on_long_wait()
        time.sleep(min(pause, max(0.0, limit_seconds - waited)))
        pause = min(pause * 2, longest_pause_seconds)


KnownThreads = frozenset[tuple[int | None, str]]
"""Identifier and name: an identifier alone is given to another thread once its first owner has ended."""


def _key(thread: threading.Thread) -> tuple[int | None, str]:
    return thread.ident, thread.name


class Patience:
    """How long to wait for a suspect: less and less where waiting has not helped, so that many leaks stay cheap."""

    def __init__(self, first_seconds: float, least_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._least_seconds = least_seconds
        self.seconds = first_seconds

    def learn(self, helped: bool) -> None:
        """Take in whether the last wait brought the memory back."""
        self.seconds = self._first_seconds if helped else max(self._least_seconds, self.seconds / 2)


class NewThreads:
    """The threads that are alive and were not known before.

    They are referred to weakly: a thread has its arguments as long as anybody has the thread, so whoever waits for
    what they hold would keep it.
    """

    def __init__(self, known: KnownThreads) -> None:
        """List them.

        Args:
            known: what a `ThreadWatch` knew.
        """
        current = threading.current_thread()
        new = [thread for thread in threading.enumerate() if _key(thread) not in known and thread is not current]
        self.names = sorted(thread.name for thread in new)
        self._threads = [weakref.ref(thread) for thread in new]

    def are_alive(self) -> bool:
        """Whether one of them is still running."""
        return any(thread is not None and thread.is_alive() for thread in (ref() for ref in self._threads))


class ThreadWatch:
    """Knows which threads are alive, without listing them where their number is the same as before."""

    def __init__(self) -> None:
        self._known: KnownThreads = frozenset()
        self._count = -1

    def known(self) -> KnownThreads:
        """Give the keys of the threads that are alive now."""
        count = threading.active_count()
        if count != self._count:
            self._count = count
            self._known = frozenset(map(_key, threading.enumerate()))
        return self._known
