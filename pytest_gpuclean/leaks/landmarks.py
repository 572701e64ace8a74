"""Objects that a person knows by another name than that of the variable in which some library keeps them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pytest_gpuclean.leaks import causes, functions, raw


class Start(NamedTuple):
    """How a chain begins."""

    kind: str
    text: str = ""
    """An expression: `test_model.CACHE`."""
    words: str = ""
    """Where it is none: `thread 'loader'`; what follows it is one of its parts."""
    head: str = ""
    """The variable with which it goes on."""
    lead: str = ""
    """What stands for the object itself in what follows, where it is followed by anything."""
    width: int = 0
    """At which object of the path the text has arrived."""
    detail: str = ""
    group: str = ""
    """What makes it one holder with others that begin alike; by default its text."""
    is_users: bool = True
    """Whether it is the user's own, not a library's."""


Path = Sequence[Any]
_MOST_NODES = 20


class Landmarks:
    """Recognises such objects by the names of their types; nothing is imported for it."""

    def __init__(self) -> None:
        self._by_type: dict[int, Naming | None] = {}

    def naming(self, candidate: Any) -> Naming | None:
        """Return what names an object of this kind, or None where it is none that a person knows."""
        naming = self._naming_of(type(candidate))
        return None if naming is _of_task and is_done(candidate) else naming

    def may_name(self, kind: type) -> bool:
        """Tell whether objects of a type may have such a name."""
        return self._naming_of(kind) is not None

    def _naming_of(self, kind: type) -> Naming | None:
        # By id, for a metaclass may compare or hash as it likes; and the search would find what refers to the type.
        if id(kind) not in self._by_type:
            found = next((naming for module, names, naming in _TYPES if raw.is_named(kind, module, *names)), None)
            self._by_type[id(kind)] = found
        return self._by_type[id(kind)]


Naming = Callable[[Path], Start]


def _of_logger(path: Path) -> Start:
    name = raw.text_of(raw.attribute(path[0], "name"))
    text = "" if raw.is_named(type(path[0]), "logging", "RootLogger") else f'"{name}"'
    return Start(causes.LOGGING_HANDLER, text=f"logging.getLogger({text})")


def _of_node(path: Path) -> Start:
    """Name a test, or what collects tests, by the names of it and of those around it: its id is made anew each time."""
    names: list[str] = []
    node = path[0]
    while raw.is_named(type(node), "_pytest.nodes", "Node") and len(names) < _MOST_NODES:
        kind = type(node)
        if not raw.is_named(kind, "_pytest.main", "Session") and not raw.is_named(kind, "_pytest.nodes", "Directory"):
            names.append(raw.text_of(raw.attribute(node, "name"), 200))
        node = raw.attribute(node, "parent")
    what = raw.qualname_of(type(path[0]))
    return _of_pytest(f"{what} {'::'.join(reversed(names))}".rstrip())


def _of_pytest(name: str) -> Start:
    return Start(causes.PYTEST, words=f"pytest's {name}", group=f"pytest's {name}")


def _of_report(path: Path) -> Start:
    identity = raw.attribute(path[0], "nodeid")
    if identity is raw.MISSING:  # since pytest 9.2 a property over this
        identity = raw.attribute(raw.attribute(path[0], "_id"), "_str_cache")
    name = raw.text_of(identity, 300)
    return _of_pytest(f"report of {name}" if name else "report")


def _of_fixture(path: Path) -> Start:
    name = raw.text_of(raw.attribute(path[0], "argname"))
    return fixture_start(path, f"fixture '{name}'")


def fixture_start(path: Path, words: str) -> Start:
    """Begin a chain with a fixture: its definition, where the value is in its cache, or the value itself.

    Args:
        path: begins with either.
        words: `fixture 'model' (module scope)`.
    """
    quoted = words.split("'")
    lead = quoted[1] if len(quoted) > 2 and quoted[1].isidentifier() else ""
    width = 0
    if raw.is_named(type(path[0]), "_pytest.fixtures", "FixtureDef"):
        cached = raw.attribute(path[0], "cached_result")
        width = next((at + 1 for at in range(1, min(3, len(path) - 1)) if path[at] is cached), 0)
    return Start(causes.FIXTURE, words=words, lead=lead, width=width, group=words)


def _of_runner(path: Path) -> Start:
    return _of_pytest(raw.qualname_of(type(path[0])))


def is_done(task: Any) -> bool:
    """Tell whether an asyncio task has ended; it holds no more than its result then."""
    return _call(task, "done") is True


def _of_task(path: Path) -> Start:
    name = raw.text_of(_call(path[0], "get_name"))
    return Start(causes.TASK, words=f"asyncio task '{name}'")


def _call(task: Any, method: str) -> Any:
    """Call a method that reads from a task: the one of asyncio's own type, in C or in Python."""
    for base in raw.mro_of(type(task)):
        if raw.module_of(base) in ("_asyncio", "asyncio.tasks", "asyncio.futures"):
            found = raw.find(raw.namespace_of(base), method)
            if found is not raw.MISSING:
                try:
                    return found(task)
                except Exception:
                    return None
    return None


_TYPES: tuple[tuple[str, tuple[str, ...], Naming], ...] = (
    ("logging", ("Logger",), _of_logger),
    ("_asyncio", ("Task",), _of_task),
    ("asyncio.tasks", ("Task",), _of_task),
    ("_pytest.nodes", ("Node",), _of_node),
    ("_pytest.reports", ("BaseReport",), _of_report),
    ("_pytest.fixtures", ("FixtureDef",), _of_fixture),
    ("_pytest.fixtures", ("FixtureRequest",), _of_runner),
    ("_pytest.config", ("Config", "PytestPluginManager"), _of_runner),
    ("_pytest.runner", ("CallInfo", "SetupState"), _of_runner),
)


def finalizer_start(path: Path) -> Start | None:
    """Begin a chain with the callback of a `weakref.finalize`, which the class keeps in a registry."""
    at = next((at for at in range(1, len(path)) if raw.is_named(type(path[at]), "weakref", "finalize._Info")), 0)
    if not at:
        return None
    callback = functions.callable_name(raw.attribute(path[at], "func"))
    referent = raw.referent_of(raw.attribute(path[at], "weakref"))
    detail = "" if referent is None else f"runs when a {raw.type_name(type(referent))} goes"
    return Start(causes.FINALIZER, words=f"weakref.finalize callback {callback}", width=at, detail=detail)


class Stores:
    """What only the interpreter itself holds, where the collector sees no referrer."""

    def __init__(self) -> None:
        self._known: dict[int, Start] = {}
        self._kinds: set[int] = set()
        signals = sys.modules.get("_signal")
        if type(signals) is types.ModuleType:
            for number in range(1, signals.NSIG):
                try:
                    handler = signals.getsignal(number)
                except ValueError:
                    continue
                self._add(handler, Start(causes.SIGNAL_HANDLER, words=f"handler of {_signal_name(signals, number)}"))
        for hook in (sys.gettrace(), sys.getprofile()):
            self._add(hook, Start(causes.INTERPRETER_HOOK, words="trace function"))
        # What a thread is handling just now, in an `except` without a name.
        for error in sys._current_exceptions().values():
            self._add(
                error[1] if type(error) is tuple else error, Start(causes.EXCEPTION, words="exception in handling")
            )

    def _add(self, value: object, start: Start) -> None:
        if value is not None and type(value) is not int:
            self._known[id(value)] = start
            self._kinds.add(id(type(value)))

    def may_name(self, kind: type) -> bool:
        """Tell whether an object of a type is among them."""
        return id(kind) in self._kinds

    def naming(self, candidate: object) -> Naming | None:
        """Return what names an object that the interpreter holds."""
        start = self._known.get(id(candidate))
        return None if start is None else lambda _path: start


def _signal_name(signals: types.ModuleType, number: int) -> str:
    for name, value in raw.pairs_of(signals.__dict__):
        if type(name) is str and name.startswith("SIG") and name[3].isalpha() and value is number:
            return name
    return f"signal {number}"
