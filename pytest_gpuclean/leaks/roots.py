"""Where a chain begins: what a person knows, and how it is called."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_gpuclean.leaks import causes, frames, functions, landmarks, raw
from pytest_gpuclean.leaks.landmarks import Naming, Start
from pytest_gpuclean.leaks.modules import Modules

_NEVER = frozenset(id(kind) for kind in (list, tuple, set, frozenset, types.CellType))
_GLOBAL_HOOKS = "_global_"
_SPECIAL_GLOBALS = {
    **{("sys", name): causes.LAST_EXCEPTION for name in ("last_value", "last_exc", "last_traceback", "last_type")},
    **{
        ("sys", name): causes.INTERPRETER_HOOK
        for name in ("excepthook", "displayhook", "unraisablehook", "breakpointhook", "stdout", "stderr", "stdin")
    },
    ("threading", "excepthook"): causes.INTERPRETER_HOOK,
    ("gc", "callbacks"): causes.INTERPRETER_HOOK,
    ("gc", "garbage"): causes.GARBAGE,
}


class Roots:
    """What a search back stops at."""

    def __init__(self, known: Mapping[int, str]) -> None:
        """Look at what is loaded and what is running.

        Args:
            known: words for objects that the caller knows, by their identity.
        """
        self.modules = Modules()
        self.running = frames.Running()
        self.known = known
        """Words by identity."""
        self._threads = {id(thread): name for _, thread, name in frames.thread_objects()}
        self._landmarks = landmarks.Landmarks()
        self._stores = landmarks.Stores()

    def is_root(self, candidate: Any) -> bool:
        """Tell whether a search has arrived."""
        return self._naming(candidate) is not None

    def may_be_root(self, kind: type) -> bool:
        """Tell whether objects of a type can be a root, whatever else the caller knows."""
        if kind is types.FunctionType or kind is functools._lru_cache_wrapper or raw.is_a(kind, type):
            return True
        is_thread = raw.is_named(kind, "threading", "Thread")
        return is_thread or self._landmarks.may_name(kind) or self._stores.may_name(kind)

    def preferred(self, roots: list[Any], value: object) -> list[Any]:
        """Choose among roots that have an object: of several modules, the one that defines it.

        Returns:
            The root alone; nothing where there is none.
        """
        namespaces = [root for root in roots if self.is_namespace(root)]
        return [self.modules.preferred(namespaces, value)] if namespaces else roots[:1]

    def is_namespace(self, candidate: Any) -> bool:
        """Tell whether an object is the namespace of a module."""
        return type(candidate) is dict and self.modules.is_namespace(candidate)

    def is_passed_over(self, candidate: Any) -> bool:
        """Tell whether an object is a function's frame that runs: its variables are looked at by themselves."""
        if type(candidate) is not types.FrameType:
            return False
        return id(candidate) in self.running.frames or frames.is_skipped(candidate)

    def start(self, path: Sequence[Any]) -> Start:
        """Name the beginning of a path, whose first object is a root."""
        if type(path[0]) is frames.Place:
            return self._of_place(path)
        naming = self._naming(path[0])
        return Start("") if naming is None else naming(path)

    def _naming(self, candidate: Any) -> Naming | None:
        kind = type(candidate)
        if id(candidate) in self.known:
            return self._of_known
        if id(candidate) in self._threads:
            return self._of_thread
        if kind is dict:
            return self._of_module if self.modules.is_namespace(candidate) else None
        if id(kind) in _NEVER:
            return None
        is_function = kind is types.FunctionType or kind is functools._lru_cache_wrapper
        is_class = raw.is_a(kind, type)
        if (is_function or is_class) and functions.is_named_by_its_module(candidate):
            return self.of_class if is_class else self._of_function
        if raw.is_a(kind, types.ModuleType):
            return self._of_module_state
        return self._stores.naming(candidate) or self._landmarks.naming(candidate)

    def _of_known(self, path: Sequence[Any]) -> Start:
        return landmarks.fixture_start(path, raw.text_of(self.known[id(path[0])], 200))

    def _of_thread(self, path: Sequence[Any]) -> Start:
        words = f"thread '{self._threads[id(path[0])]}'"
        return Start(causes.THREAD, words=words, group=words)

    def _of_module(self, path: Sequence[Any]) -> Start:
        namespace = path[0]
        module = self.modules.name_of(namespace)
        names = [raw.name_text(key) for key, value in raw.pairs_of(namespace) if value is path[1]] or ["<unknown>"]
        kind = _SPECIAL_GLOBALS.get((module, names[0]), causes.MODULE_GLOBAL)
        if module == "torch.nn.modules.module" and names[0].startswith(_GLOBAL_HOOKS):
            kind = causes.BACKWARD_HOOK if "backward" in names[0] else causes.FORWARD_HOOK
        is_users = self.modules.is_users(namespace) or kind != causes.MODULE_GLOBAL
        detail = "" if len(names) == 1 else f"also {', '.join(f'{module}.{name}' for name in names[1:4])}"
        return Start(kind, text=f"{module}.{names[0]}", width=1, detail=detail, is_users=is_users)

    def _of_module_state(self, path: Sequence[Any]) -> Start:
        namespace = raw.module_dict(path[0])
        name = "" if namespace is None else self.modules.name_of(namespace)
        return Start(causes.MODULE_GLOBAL, words=f"state of module {name}", is_users=False)

    def of_class(self, path: Sequence[Any]) -> Start:
        """Begin a chain with a class, also with one that its module does not know by its name."""
        if raw.is_named(path[0], "weakref", "finalize"):
            finalizer = landmarks.finalizer_start(path)
            if finalizer is not None:
                return finalizer
        namespace = raw.module_dict(sys.modules.get(raw.module_of(path[0])))
        is_users = namespace is None or self.modules.is_users(namespace)
        return Start(causes.CLASS_ATTRIBUTE, text=raw.type_name(path[0]), is_users=is_users)

    def _of_function(self, path: Sequence[Any]) -> Start:
        function = path[0]
        if type(function) is types.FunctionType:
            return Start(causes.MODULE_GLOBAL, text=functions.name_of(function))
        return Start(causes.FUNCTOOLS_CACHE, text=functions.name_of_cache(function))

    def _of_place(self, path: Sequence[Any]) -> Start:
        place: frames.Place = path[0]
        namespace = raw.module_dict(sys.modules.get(place.module))
        group = f"thread '{place.thread}'" if place.thread else ""
        return Start(
            causes.THREAD if group else causes.RUNNING_FUNCTION,
            words=f"{group} in {place.function}" if group else f"running function {place.function}",
            head=place.variable,
            width=1,
            detail=f"now at {place.standing}",
            group=group,
            is_users=namespace is None or self.modules.is_users(namespace),
        )
