"""What functions hold that have not ended: where they stand, and how their variables are called."""

from __future__ import annotations

import _thread
import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from pytest_gpuclean.interpreter import writes_locals_back
from pytest_gpuclean.leaks import raw

_RUNNER = frozenset({"_pytest", "pluggy", "pytest"})
_SKIPPED = _RUNNER | {__name__.partition(".")[0]}
"""Packages whose functions are the caller's own way to here."""


class Place(NamedTuple):
    """A variable of a function that is running."""

    function: str
    """`test_model.loop`."""
    variable: str
    thread: str
    """The name of the thread; empty for the one that looks."""
    standing: str
    """`test_model.py:12 in loop`."""
    module: str


class Running:
    """The variables of every function that is running in some thread, by the identity of their values.

    Since 3.11 the frames of running functions are in no list of the collector.
    """

    def __init__(self) -> None:
        self.frames: set[int] = set()
        self._places: dict[int, list[Place]] = {}
        for place, value in self.variables():
            self._places.setdefault(id(value), []).append(place)

    def places(self, value: object) -> list[Place]:
        """List the variables that refer to an object."""
        return self._places.get(id(value), [])

    def variables(self) -> list[tuple[Place, Any]]:
        """List every variable with its value."""
        found: list[tuple[Place, Any]] = []
        names = {identity: name for identity, _, name in thread_objects()}
        here = _thread.get_ident()
        tops = sys._current_frames()
        while tops:
            identity, frame = tops.popitem()
            name = "" if identity == here else names.get(identity, f"{identity}, not started by threading")
            found += self._of_thread(frame, name)
            del frame
        return found

    def _of_thread(self, top: types.FrameType, thread: str) -> list[tuple[Place, Any]]:
        found: list[tuple[Place, Any]] = []
        frame: types.FrameType | None = top
        inside = ""
        is_around = False
        while frame is not None:
            self.frames.add(id(frame))
            # What has called the test runner, and the runner's plugins on the way to here, hold what they hold for it.
            is_around = is_around or (thread == "" and _module_of(frame).partition(".")[0] in _RUNNER)
            if not is_around and not is_skipped(frame):
                function, module = function_of(frame), _module_of(frame)
                standing = f"{standing_of(frame)}{inside}"
                for variable, value in variables_of(frame):
                    found.append((Place(function, variable, thread, standing, module), value))
            inside = inside or f", inside {standing_of(frame)}"
            frame = frame.f_back
        return found


def is_skipped(frame: types.FrameType) -> bool:
    """Tell whether a function is of this package or of the test runner."""
    return _module_of(frame).partition(".")[0] in _SKIPPED


def function_of(frame: types.FrameType) -> str:
    """Name the function of a frame: `test_model.loop`."""
    return ".".join(filter(None, (_module_of(frame), code_name(frame.f_code))))


def code_name(code: types.CodeType) -> str:
    """Name a code object, from 3.11 on with its class."""
    return raw.text_of(getattr(code, "co_qualname", code.co_name))


def standing_of(frame: types.FrameType) -> str:
    """Say where a function stands: `test_model.py:12 in loop`."""
    return place_in(frame.f_code, frame.f_lineno)


def place_in(code: types.CodeType, line: int | None) -> str:
    """Say which line of which function: `test_model.py:12 in loop`."""
    name = raw.text_of(code.co_filename, 4096).replace("\\", "/").rpartition("/")[2]
    return f"{raw.text_of(name)}:{line or 0} in {raw.text_of(code.co_name)}"


def variables_of(frame: types.FrameType) -> list[tuple[str, Any]]:
    """List the variables of a function with their values; nothing is left behind in the frame."""
    code = frame.f_code
    # A module's or class body's f_locals are the real namespace.
    if not code.co_flags & inspect.CO_OPTIMIZED or writes_locals_back(frame.f_trace):
        return []
    names = frame.f_locals
    found = [(raw.text_of(name), value) for name, value in names.items()]
    # Until 3.12 the frame keeps this copy, and with it alive what the function deletes later; but it is the same that
    # locals() gives out, so not where somebody else has it (3: the frame, here, the call).
    if sys.version_info < (3, 13) and sys.getrefcount(names) <= 3:
        names.clear()
    return found


def variable_of(frame: types.FrameType, value: object) -> str:
    """Name the variable of a frame that refers to an object; empty where none does, such as for a loop's iterator."""
    for name, found in variables_of(frame):
        if found is value:
            return name
    return ""


def names_of(code: types.CodeType) -> frozenset[str]:
    """List the names of a function's variables."""
    return frozenset((*code.co_varnames, *code.co_cellvars, *code.co_freevars))


def frame_of(suspended: Any) -> types.FrameType | None:
    """Return the frame of a generator, coroutine or asynchronous generator; None where it has ended, or is none."""
    kind = type(suspended)
    found: types.FrameType | None = None
    if kind is types.GeneratorType:
        found = suspended.gi_frame
    elif kind is types.CoroutineType:
        found = suspended.cr_frame
    elif kind is types.AsyncGeneratorType:
        found = suspended.ag_frame
    return found


def code_of(suspended: Any) -> types.CodeType:
    """Return the code of a generator, coroutine or asynchronous generator."""
    kind = type(suspended)
    if kind is types.GeneratorType:
        code: types.CodeType = suspended.gi_code
    elif kind is types.CoroutineType:
        code = suspended.cr_code
    else:
        code = suspended.ag_code
    return code


def thread_objects() -> Iterator[tuple[int, Any, str]]:
    """Give each live thread that `threading` knows: its identity, its object and its name."""
    threading = raw.module_dict(sys.modules.get("threading"))
    active = raw.MISSING if threading is None else raw.find(threading, "_active")
    for identity, thread in raw.pairs_of(active) if type(active) is dict else ():
        if type(identity) is int:
            yield identity, thread, raw.text_of(raw.attribute(thread, "_name")) or "unnamed"


def _module_of(frame: types.FrameType) -> str:
    return raw.text_of(raw.find(frame.f_globals, "__name__"))
