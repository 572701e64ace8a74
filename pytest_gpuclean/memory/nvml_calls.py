"""Asking NVIDIA's management library: late, bounded in time, and with every error as a sentence."""

from __future__ import annotations

import _thread
import importlib
import os
import sys
import threading
import warnings
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from pytest_gpuclean.memory.interface import first_line, loaded
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.units import format_seconds

SOURCE = "nvml"
UNINITIALIZED = 1
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
ARGUMENT_VERSION_MISMATCH = 25
LIMIT_SECONDS = 2.0
FIRST_LIMIT_SECONDS = 5.0
"""Without the persistence daemon, the first call wakes every card of the machine: a second or two each."""

Result = TypeVar("Result")


class NvmlError(Exception):
    """A call that NVML refused, in a sentence that names the call."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        """NVML's own number for the error; None where it comes from elsewhere."""


Call = Callable[..., Any]
"""Calls a function of NVML by its name in nvidia-ml-py, and raises `NvmlError`."""


class NoDriverError(Exception):
    """There is no NVIDIA driver on this machine."""

    def __init__(self) -> None:
        super().__init__("there is no NVIDIA driver here (libnvidia-ml was not found)")


def load_pynvml() -> Any:
    """Import nvidia-ml-py, where there is a driver that it could ask.

    Raises:
        ImportError: where it is missing.
        NoDriverError: where there is no driver; found out without the import, which takes 26 ms.
    """
    if sys.platform == "linux":
        import ctypes

        try:
            ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            raise NoDriverError from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the deprecated shell of the same name warns at its import
        importlib.import_module("pynvml")
    return loaded("pynvml")


class NvmlCalls:
    """The way to NVML of one run.

    Nothing is imported and nothing is initialised before the first question; NVML initialises no CUDA. A question
    is put in a thread of its own, so that a driver that hangs costs a bounded wait once. The thread ends with its
    answer: one that stays would make every later `os.fork` of a test warn, from Python 3.12 on.

    Args:
        load: gives nvidia-ml-py, or None where a test has put something else in its place.
        limit_seconds: how long an answer may take.
        first_limit_seconds: the same while NVML is not initialised.
    """

    def __init__(
        self,
        load: Callable[[], Any] = load_pynvml,
        limit_seconds: float = LIMIT_SECONDS,
        first_limit_seconds: float = FIRST_LIMIT_SECONDS,
    ) -> None:
        self._load = load
        self._limit_seconds = limit_seconds
        self._first_limit_seconds = first_limit_seconds
        self._library: Any = None
        self._calling = ""
        self._here = _Here()
        self.given_up: Unavailable | None = None
        """Why NVML is not asked any more in this run."""
        self.is_absent = False
        """Whether that is because there is no driver, or no nvidia-ml-py: no trouble, but a machine of another kind."""

    def ask(self, question: Callable[[Call], Result]) -> Result | Unavailable:
        """Put a question that may take several calls.

        Args:
            question: gets the way to call.
        """
        if self.given_up is None and self._here.pid != os.getpid():
            self._here = _Here()  # a fork has its parent's locks as they were at that moment, and no NVML of its own
        here = self._here
        with here.lock:
            missing = self.given_up or self._find()
            return self._ask(here, question) if missing is None else missing

    def _find(self) -> Unavailable | None:
        try:
            self._library = self._library or self._load()
        except NoDriverError as error:
            self.given_up, self.is_absent = Unavailable(SOURCE, str(error)), True
        except ImportError as error:
            self.is_absent = isinstance(error, ModuleNotFoundError) and error.name == "pynvml"
            reason = "nvidia-ml-py is not installed" if self.is_absent else first_line(error)
            self.given_up = Unavailable(SOURCE, reason)
        except Exception as error:
            self.given_up = Unavailable(SOURCE, f"nvidia-ml-py cannot be imported: {first_line(error)}")
        if self._library is None:
            return self.given_up or Unavailable(SOURCE, "the module pynvml is not the one of nvidia-ml-py")
        return None

    def _ask(self, here: _Here, question: Callable[[Call], Result]) -> Result | Unavailable:
        answers: SimpleQueue[Result | Unavailable] = SimpleQueue()
        limit_seconds = self._limit_seconds if here.is_up else self._first_limit_seconds

        def work() -> None:
            answers.put(self._answer(here, question))

        try:
            _thread.start_new_thread(work, ())  # not in threading's list, where it would look like one of a test's
            return answers.get(timeout=limit_seconds)
        except Empty:
            waited = format_seconds(limit_seconds)
            reason = f"the driver did not answer {self._calling} within {waited}, and is not asked again in this run"
            self.given_up = Unavailable(SOURCE, reason)
            return self.given_up
        except RuntimeError as error:  # no thread to be had
            return Unavailable(SOURCE, first_line(error))

    def _answer(self, here: _Here, question: Callable[[Call], Result]) -> Result | Unavailable:
        try:
            if not here.is_up:
                refusal = self._begin(here)
                if refusal is not None:
                    return refusal
            try:
                return question(self._call)
            except NvmlError as error:
                if error.code != UNINITIALIZED:
                    raise
                # Somebody in this process has called nvmlShutdown more often than nvmlInit.
                return self._begin(here) or question(self._call)
        except NvmlError as error:
            return Unavailable(SOURCE, str(error))
        except BaseException as error:  # in this thread it would reach nobody, and the asker would wait in vain
            return Unavailable(SOURCE, first_line(error))

    def _begin(self, here: _Here) -> Unavailable | None:
        try:
            self._call("nvmlInit")
        except NvmlError as error:
            self.is_absent = error.code == LIBRARY_NOT_FOUND
            self.given_up = Unavailable(SOURCE, str(NoDriverError() if self.is_absent else error))
            return self.given_up
        here.is_up = True
        return None

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        self._calling = name
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise NvmlError(f"this release of nvidia-ml-py has no {name}", FUNCTION_NOT_FOUND) from None
        try:
            return function(*arguments, **options)
        except Exception as error:
            raise NvmlError(f"{name} failed: {_text(error)}", _code(error)) from None


class _Here:
    """What belongs to this process alone, and not to its forks."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.is_up = False


def _code(error: Exception) -> int | None:
    if type(error).__name__ == "NVMLLibraryMismatchError":  # how nvidia-ml-py words a function that is missing
        return FUNCTION_NOT_FOUND
    code = getattr(error, "value", None)
    return code if type(code) is int else None


def _text(error: Exception) -> str:
    code = _code(error)
    if code is None or not type(error).__name__.startswith("NVMLError"):
        return first_line(error)
    return f"{first_line(error).partition(': ')[2].rstrip('.') or 'an error without a name'} (NVML error {code})"
