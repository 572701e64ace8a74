"""Work that no signal handler of a test may break off."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_LONGEST_START_SECONDS = 1.0
_LOOK_SECONDS = 0.5
"""As often it is looked whether the work is done, in case that nobody could say so."""


def run_apart(does: Callable[[], Result]) -> Result:
    """Do something in a thread of its own, and wait for it.

    Handlers of signals run in the main thread. torch's data loader raises from its SIGCHLD handler where a worker of
    its own ends, and would break off whoever stops the worker. What a handler raises meanwhile is dropped; an interrupt
    of the user is raised once the work is done.

    Args:
        does: what is to be done; what it raises is raised here.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    has_begun, is_done = threading.Event(), threading.Event()

    def work() -> None:
        try:
            has_begun.set()
            results.append(does())
        except BaseException as error:
            errors.append(error)
        with contextlib.suppress(Exception):  # whoever waits looks by itself too
            is_done.set()

    interrupt: BaseException | None = None
    thread = threading.Thread(target=work, name="gpuclean-stop", daemon=True)
    try:
        thread.start()
    except Exception:  # raised by a handler while the thread came up, or there is no thread to be had
        if not has_begun.wait(_LONGEST_START_SECONDS):
            work()
    # Not Thread.join(): before Python 3.13, one that is broken off takes the thread for ended.
    while not (results or errors):
        try:
            is_done.wait(_LOOK_SECONDS)
        except Exception:
            continue
        except BaseException as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
    if errors:
        raise errors[0]
    return results[0]
