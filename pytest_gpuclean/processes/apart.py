"""Work that no signal handler of a test may break off."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


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

    def work() -> None:
        try:
            results.append(does())
        except BaseException as error:
            errors.append(error)
        finally:
            is_done.set()

    # Not Thread.join(): before Python 3.13, one that is broken off takes the thread for ended.
    is_done = threading.Event()
    threading.Thread(target=work, name="gpuclean-stop", daemon=True).start()
    interrupt: BaseException | None = None
    while not is_done.is_set():
        try:
            is_done.wait()
        except Exception:
            continue
        except BaseException as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
    if errors:
        raise errors[0]
    return results[0]
