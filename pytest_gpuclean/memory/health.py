"""Whether the devices that this process uses still answer: asked after a failure, never of a device not in use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from pytest_gpuclean.memory.interface import first_line, loaded, member
from pytest_gpuclean.memory.torch import initialised_backends, stats_reader

_CALLS = 2
"""An error that sticks is raised by every call; one that a call has taken away was none of the device's."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one device answered."""

    device: str
    error: str = ""
    """What it raises at every call; empty where it answers."""
    is_silent: bool = False
    """Whether it gave no answer in time: it may still be at work."""


class HealthCheck:
    """Waits for each device in use, in a thread: a device that hangs must not take the run with it."""

    def __init__(self, limit_seconds: float) -> None:
        """Set it up.

        Args:
            limit_seconds: the upper bound of the wait for all devices together.
        """
        self._limit_seconds = limit_seconds
        self._thread: threading.Thread | None = None

    def ask(self) -> list[Answer]:
        """Ask every device that torch has used in this process; none is initialised by it."""
        torch = loaded("torch")
        calls = _calls(torch) if torch is not None else {}
        if not calls:
            return []
        answers: list[Answer] = []
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=_ask_each, args=(calls, answers), name="gpuclean-health", daemon=True
            )
            self._thread.start()
            self._thread.join(self._limit_seconds)
        found = list(answers)
        heard = {answer.device for answer in found}
        return found + [Answer(device, is_silent=True) for device in calls if device not in heard]


def _ask_each(calls: dict[str, Callable[[], object]], answers: list[Answer]) -> None:
    for device, call in calls.items():
        error = ""
        for _ in range(_CALLS):
            try:
                call()
            except Exception as raised:
                error = first_line(raised)
            else:
                error = ""
                break
        answers.append(Answer(device, error))


def _calls(torch: ModuleType) -> dict[str, Callable[[], object]]:
    """Give, for each device in use, what waits for it."""
    calls: dict[str, Callable[[], object]] = {}
    for backend in initialised_backends(torch):
        module = member(torch, backend)
        if backend == "mps":
            calls["mps"] = module.synchronize
            continue
        wait = member(torch, "accelerator", "synchronize") or module.synchronize
        for index in range(module.device_count()):
            if _is_used(torch, module, index):
                calls[f"{backend}:{index}"] = lambda wait=wait, index=index: wait(index)  # type: ignore[misc]
    return calls


def _is_used(torch: ModuleType, module: ModuleType, index: int) -> bool:
    """Whether anything was ever allocated there: to wait for another would bring it up, at hundreds of MB."""
    try:
        return int(stats_reader(torch, module)(index)["allocated_bytes"]["all"]["allocated"]) > 0
    except Exception:  # a lost device may raise even here; one that never was used keeps its books
        return True
