"""Every call that the package makes, from the outside: listed in one run, and made to fail in another.

A profile function sees each call before it happens, and what it raises is raised there. So nothing has to be replaced,
no list has to be kept, and a call that is new in the package is a new fault.
"""

import builtins
import dis
import errno
import inspect
import os
import random
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest_gpuclean

PACKAGE = str(Path(pytest_gpuclean.__file__).parent) + os.sep
# A fault between the raising of another and its telling would be a second one; what a test calls is guarded behind; and
# what a conftest.py imports of the package fails there.
UNGUARDED = ("plugin/guard.py", "plugin/trouble.py", "plugin/handle.py", "public.py", "pytest_gpuclean/__init__.py")
BEFORE_ALL = (
    "pytest_addoption",
    "add_options",
    "pytest_plugin_registered",
    "declare",
    "gpu_clean",
    "_handle",
    "_bring_up",
    "_phase",
    "ihook",
)
"""Without what they do there is no run: pytest does not know the options that it was given. And a fixture is called.

A test that runs again is brought up by nothing but calls of pytest's hooks, which are the last three.
"""
BY_HOOKS = "run_quietly"
"""So is this one, beside what it does of its own."""
NOT_FAILED = ("_bring_up", "skip_at_item")
"""What only goes on to pytest: it fails inside, where that may fail."""
REACHING_OUT = {"posix", "_io", "io", "select", "_socket", "_signal", "fcntl", "_posixsubprocess", "_thread"}
"""Modules in C whose functions ask the system; what others in C do only fails with the whole process."""
_SUSPENDS = ("YIELD_VALUE", "YIELD_FROM", "SEND")
_SHARE_THAT_PERSISTS = 0.2
SYSTEM_ERRORS = (errno.EACCES, errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EPIPE)


@dataclass(frozen=True)
class Fault:
    """A call to fail: `reports/files.py:55 write_file -> posix.open`, the how many-th, and with what."""

    seam: str
    nth: int
    kind: str
    persists: bool = False
    """Whether all calls from there on fail, as with a disk that is full."""

    def __str__(self) -> str:
        return f"{self.seam} #{self.nth} {self.kind}{' from then on' if self.persists else ''}"


def kinds_for(seam: str) -> list[str]:
    """What may be raised at a call, the likely first."""
    callee = seam.rpartition(" -> ")[2]
    module = callee.partition(".")[0]
    if module in REACHING_OUT or module in ("os", "socket", "signal", "subprocess", "shutil", "tempfile"):
        if "start_new_thread" in callee:
            return ["RuntimeError"]
        return [f"OSError:{errno.errorcode[number]}" for number in SYSTEM_ERRORS]
    if module == "threading":
        return ["RuntimeError", "MemoryError"]
    if module == "psutil":
        return ["psutil.AccessDenied", "psutil.NoSuchProcess", "psutil.ZombieProcess", "OSError:EIO"]
    if module == "json":
        return ["ValueError", "RecursionError"]
    return ["RuntimeError", "MemoryError", "RecursionError", "OSError:EIO", "KeyError"]


def make_error(kind: str, text: str) -> BaseException:
    """Make what a fault raises, with a text to look for."""
    name, _, detail = kind.partition(":")
    if name == "OSError":
        return OSError(getattr(errno, detail), text)
    if name.startswith("psutil."):
        import psutil

        return getattr(psutil, name.partition(".")[2])(os.getpid(), None, *([None] if "Zombie" in name else []), text)
    error: BaseException = getattr(builtins, name)(text)
    return error


class Seams:
    """Counts the calls of the package, and fails one of them where told to.

    Args:
        fault: which; None to fail none.
        text: what the error says.
    """

    def __init__(self, fault: Fault | None, text: str) -> None:
        self.fault, self.text = fault, text
        self.counts: Counter[str] = Counter()
        self.raised = 0
        self._places: dict[object, str | None] = {}
        self._yields: dict[object, int] = {}

    def begin(self) -> None:
        threading.setprofile(self._see)
        sys.setprofile(self._see)

    def end(self) -> None:
        threading.setprofile(None)  # type: ignore[arg-type]
        sys.setprofile(None)

    def _see(self, frame, event, arg) -> None:
        if event == "call":
            caller, callee = frame.f_back, frame
        elif event == "c_call":
            caller, callee = frame, arg
        else:
            return
        if caller is None:
            return
        place = self._place(caller.f_code)
        if place is None:
            return
        if event == "call" and self._goes_on(frame):
            return
        name = _callee(frame) if event == "call" else _builtin(callee)
        if name is None or (place[1] == BY_HOOKS and name.startswith("pluggy.")):
            return
        seam = f"{place[0]}:{caller.f_lineno} {place[1]} -> {name}"
        self.counts[seam] += 1
        fault = self.fault
        if fault is not None and fault.seam == seam and self.counts[seam] >= fault.nth:
            if fault.persists or not self.raised:
                self.raised += 1
                error = make_error(fault.kind, self.text)
                if fault.persists:
                    error.again = _Again(self)  # raising takes the profile function away
                raise error

    def _goes_on(self, frame) -> bool:
        """Whether a generator has only been resumed: it may be to end it, where an error would go nowhere."""
        code = frame.f_code
        if not code.co_flags & inspect.CO_GENERATOR:
            return False
        first = self._yields.get(code)
        if first is None:
            first = next((each.offset for each in dis.get_instructions(code) if each.opname in _SUSPENDS), 0)
            self._yields[code] = first
        return frame.f_lasti >= first

    def _place(self, code):
        try:
            return self._places[code]
        except KeyError:
            path = code.co_filename
            own = path.startswith(PACKAGE) and not path.endswith(UNGUARDED)
            own = own and code.co_name not in BEFORE_ALL
            place = (path[len(PACKAGE) :], code.co_name) if own else None
            self._places[code] = place
            return place


class _Again:
    """Goes with the error that it is attached to."""

    def __init__(self, seams: Seams) -> None:
        self.seams = seams

    def __del__(self) -> None:
        if self.seams.fault is not None:
            sys.setprofile(self.seams._see)


def _callee(frame) -> str | None:
    code = frame.f_code
    if code.co_name in ("<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>", "<lambda>"):
        return None
    path = code.co_filename
    if path.startswith(PACKAGE) and code.co_name in NOT_FAILED:
        return None
    if code.co_name == "__del__":  # what it raises goes nowhere, whoever it is
        return None
    if code.co_name in ("_remove", "remove") and path.endswith(("_weakrefset.py", "weakref.py")):  # nor what these do
        return None
    if path.startswith(PACKAGE):
        return None if path.endswith(UNGUARDED) else f"own.{code.co_name}"
    return f"{frame.f_globals.get('__name__', '?')}.{code.co_name}"


def _builtin(function) -> str | None:
    module = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
    if module == "_thread" and function.__name__ != "start_new_thread":  # a lock that is not let go stops everybody
        return None
    return f"{module}.{function.__name__}" if module in REACHING_OUT else None


def choose(counts: dict[str, int], chance: random.Random) -> list[Fault]:
    """Make faults of the calls of a run: each seam once, in random order."""
    seams = sorted(counts)
    chance.shuffle(seams)
    return [
        Fault(
            seam,
            nth=chance.choice((1, chance.randint(1, counts[seam]))),
            kind=chance.choice(kinds_for(seam)),
            persists=chance.random() < _SHARE_THAT_PERSISTS,
        )
        for seam in seams
    ]
