"""Where a chain begins: what a person knows, and how it is called."""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pytest_gpuclean.leaks import causes, frames, functions, raw
from pytest_gpuclean.leaks.modules import Modules


class Start(NamedTuple):
    """How a chain begins."""

    kind: str
    text: str = ""
    """An expression: `test_model.CACHE`."""
    words: str = ""
    """Where it is none: `thread 'loader'`; what follows it is one of its parts."""
    head: str = ""
    """The variable with which it goes on."""
    width: int = 0
    """At which object of the path the text has arrived."""
    detail: str = ""
    is_users: bool = True
    """Whether it is the user's own, not a library's."""


class Roots:
    """What a search back stops at."""

    def __init__(self, known: Mapping[int, str]) -> None:
        """Look at what is loaded and what is running.

        Args:
            known: words for objects that the caller knows, by their identity.
        """
        self.modules = Modules()
        self.running = frames.Running()
        self._known = known
        self._threads = {id(thread): name for _, thread, name in frames.thread_objects()}
        self._stores = _stores()
        self._starts: dict[int, _Naming | None] = {}

    def is_root(self, candidate: Any) -> bool:
        """Tell whether a search has arrived."""
        return self._naming(candidate) is not None

    def is_passed_over(self, candidate: Any) -> bool:
        """Tell whether an object is a function's frame that runs: its variables are looked at by themselves."""
        if type(candidate) is not types.FrameType:
            return False
        return id(candidate) in self.running.frames or frames.is_skipped(candidate)

    def start(self, path: Sequence[Any]) -> Start:
        """Name the beginning of a path, whose first object is a root."""
        if type(path[0]) is frames.Place:
            return _of_place(path)
        naming = self._naming(path[0])
        assert naming is not None
        return naming(self, path)

    def _naming(self, candidate: Any) -> _Naming | None:
        if id(candidate) in self._known:
            return Roots._of_known
        if id(candidate) in self._stores:
            return Roots._of_store
        if id(candidate) in self._threads:
            return Roots._of_thread
        kind = type(candidate)
        if kind is dict:
            return Roots._of_module if self.modules.is_namespace(candidate) else None
        if kind in _NEVER:
            return None
        if kind is types.FunctionType or kind is functools._lru_cache_wrapper:
            return Roots._of_function if functions.is_named_by_its_module(candidate) else None
        if raw.is_a(kind, type):
            return Roots._of_class
        if raw.is_a(kind, types.ModuleType):
            return Roots._of_module_state
        return None

    def _of_known(self, path: Sequence[Any]) -> Start:
        return Start(causes.FIXTURE, words=raw.text_of(self._known[id(path[0])], 200))

    def _of_store(self, path: Sequence[Any]) -> Start:
        kind, words = self._stores[id(path[0])]
        return Start(kind, words=words)

    def _of_thread(self, path: Sequence[Any]) -> Start:
        return Start(causes.THREAD, words=f"thread '{self._threads[id(path[0])]}'")

    def _of_module(self, path: Sequence[Any]) -> Start:
        namespace = path[0]
        module = self.modules.name_of(namespace)
        name = raw.text_of(raw.key_of(namespace, path[1])) or "<unknown>"
        kind = _SPECIAL_GLOBALS.get((module, name), causes.MODULE_GLOBAL)
        is_users = self.modules.is_users(namespace) or kind != causes.MODULE_GLOBAL
        return Start(kind, text=f"{module}.{name}", width=1, is_users=is_users)

    def _of_module_state(self, path: Sequence[Any]) -> Start:
        namespace = raw.module_dict(path[0])
        name = "module" if namespace is None else self.modules.name_of(namespace)
        return Start(causes.MODULE_GLOBAL, words=f"state of module {name}", is_users=False)

    def _of_class(self, path: Sequence[Any]) -> Start:
        name = raw.type_name(path[0])
        namespace = raw.module_dict(sys.modules.get(raw.module_of(path[0])))
        is_users = namespace is None or self.modules.is_users(namespace)
        return Start(causes.CLASS_ATTRIBUTE, text=name, is_users=is_users)

    def _of_function(self, path: Sequence[Any]) -> Start:
        function = path[0]
        if type(function) is types.FunctionType:
            return Start(causes.MODULE_GLOBAL, text=functions.name_of(function))
        return Start(causes.FUNCTOOLS_CACHE, text=functions.name_of_cache(function))


_Naming = Callable[[Roots, Sequence[Any]], Start]
_NEVER = (list, tuple, set, frozenset, types.CellType)
_SPECIAL_GLOBALS = {
    **{("sys", name): causes.LAST_EXCEPTION for name in ("last_value", "last_exc", "last_traceback", "last_type")},
    **{
        ("sys", name): causes.INTERPRETER_HOOK
        for name in ("excepthook", "displayhook", "unraisablehook", "breakpointhook", "stdout", "stderr", "stdin")
    },
    ("threading", "excepthook"): causes.INTERPRETER_HOOK,
    ("gc", "garbage"): causes.GARBAGE,
    ("gc", "callbacks"): causes.INTERPRETER_HOOK,
}


def _of_place(path: Sequence[Any]) -> Start:
    place: frames.Place = path[0]
    if place.thread:
        words, kind = f"thread '{place.thread}' in {place.function}", causes.THREAD
    else:
        words, kind = f"running function {place.function}", causes.RUNNING_FUNCTION
    return Start(kind, words=words, head=place.variable, width=1, detail=f"now at {place.standing}")


def _stores() -> dict[int, tuple[str, str]]:
    """Name the objects that only the interpreter itself holds, where the collector sees no referrer."""
    found: dict[int, tuple[str, str]] = {}
    signals = sys.modules.get("_signal")
    if signals is not None:
        for number in range(1, signals.NSIG):
            try:
                handler = signals.getsignal(number)
            except ValueError:
                continue
            found.setdefault(id(handler), (causes.SIGNAL_HANDLER, f"handler of signal {number}"))
    for hook in (sys.gettrace(), sys.getprofile()):
        found[id(hook)] = (causes.INTERPRETER_HOOK, "trace function")
    for constant in (None, 0, 1):
        found.pop(id(constant), None)
    return found


def frozen_objects() -> int:
    """Count what `gc.freeze` has put where no search sees it."""
    return gc.get_freeze_count()
