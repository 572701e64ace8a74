"""A light record of where tensors and arrays are made, for a run of a single suspect: it makes every operation slower.

torch's operations are seen by a dispatch mode, NumPy's allocations by tracemalloc. What is kept are numbers and text.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from pytest_gpuclean.memory.census import values_in_heap
from pytest_gpuclean.memory.interface import loaded, member
from pytest_gpuclean.memory.places import Place, Places, caller_places, places_of
from pytest_gpuclean.memory.storages import StorageReaders

Identity = tuple[str, int]
Dispatched = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]

_MOST_FRAMES = 8
"""That tracemalloc keeps of each allocation: NumPy's own Python functions are one or two. A torch.compile took 12 times
as long with 8, and 44 times with 32."""
_BIRTHS = ("aten.lift_fresh.", "aten.set_.")
"""Operators by which memory comes into sight that was made without any: by `torch.tensor`, `torch.load`."""
_MOST_RESULTS = 10_000
"""Of one operation."""


class SiteRecorder:
    """Notes, while it is open, which line of the user's code each tensor and array comes from."""

    def __init__(self, places: Places | None = None, *, traces_arrays: bool = True) -> None:
        """Set it up.

        Args:
            places: names places in code.
            traces_arrays: whether NumPy's allocations are looked at too: Python code takes many times as long then.
        """
        self.traces_arrays = traces_arrays
        self._places = Places() if places is None else places
        self._sites: dict[Identity, tuple[int, str]] = {}
        """By storage: its size, and the place. An address may have been given to something else since."""
        self._readers: StorageReaders | None = None
        self._thread = 0
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> None:
        self.forget()
        self._thread = threading.get_ident()
        self._readers = StorageReaders()
        with contextlib.ExitStack() as undo:
            # They are undone from the last to the first: the arrays are noted while their traces are still there.
            undo.callback(self._note_arrays, self.traces_arrays and _start_tracemalloc(undo))
            undo.enter_context(_dispatch_mode(self._dispatched))
            self._undo = undo.pop_all()

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(Exception):  # what was not noted is not known; the run of the suspect goes on
            self._undo.close()

    def forget(self) -> None:
        """Drop what was noted."""
        self._sites = {}

    def site_of(self, identity: Identity, value: Any) -> str:
        """Name where the memory behind a tensor or an array was made; empty where that was not seen.

        Args:
            identity: of its storage.
            value: the tensor or array: an address of another size than before is not the same.
        """
        size, site = self._sites.get(identity, (0, ""))
        reader = self._readers.reader_of(type(value)) if site and self._readers else None
        storage = reader(value) if reader else None
        return site if storage is not None and storage.size_bytes == size else ""

    def _dispatched(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Let an operator run, and note what is new in its results."""
        before: set[Identity] | None = None
        with contextlib.suppress(Exception):
            before = {storage.identity for storage in self._storages((args, kwargs))}
            if str(operator).startswith(_BIRTHS):
                before &= self._sites.keys()
        result = operator(*args, **kwargs)
        if before is not None:
            with contextlib.suppress(Exception):
                self._note(result, before)
        return result

    def _note(self, result: Any, before: set[Identity]) -> None:
        site: str | None = None
        for storage in self._storages((result,)):
            if storage.identity not in before:
                if site is None:
                    site = self._site_of_caller()
                self._sites[storage.identity] = storage.size_bytes, site

    def _site_of_caller(self) -> str:
        site = self._places.site(caller_places())
        if site or threading.get_ident() == self._thread:
            return site
        # A backward pass on a device runs in a thread of torch's, while the one that asked for it waits.
        return self._places.site(places_of(sys._current_frames().get(self._thread)))

    def _storages(self, values: tuple[Any, ...]) -> Iterator[Any]:
        assert self._readers is not None
        found = list(values)
        for value in found:
            kind = type(value)
            if kind in (list, tuple) and len(found) < _MOST_RESULTS:
                found += value
            elif kind is dict and len(found) < _MOST_RESULTS:
                found += value.values()
            else:
                reader = self._readers.reader_of(kind)
                storage = reader(value) if reader else None
                if storage is not None:
                    yield storage
                elif reader is not None:  # a tensor that is made of others has them as attributes
                    found += [part for part in gc.get_referents(value) if type(part) is dict]

    def _note_arrays(self, is_tracing: bool) -> None:
        numpy = loaded("numpy")
        kind: Any = member(numpy, "ndarray") if numpy else None
        if not is_tracing or kind is None or not tracemalloc.is_tracing():
            return
        assert self._readers is not None
        kinds = [kind, *_subclasses(kind)]
        for layer in values_in_heap(kinds):
            for array in layer:
                owner = _owner_of(array, kind)
                reader = self._readers.reader_of(type(owner))
                storage = reader(owner) if reader else None
                if storage is None or reader is None:
                    continue
                trace = tracemalloc.get_object_traceback(owner)
                if trace is not None:
                    places = [Place(frame.filename, frame.lineno, "") for frame in reversed(trace)]
                    self._sites[storage.identity] = storage.size_bytes, self._places.site(places)


def _owner_of(array: Any, kind: Any) -> Any:
    """Follow views to the array whose memory they show."""
    while any(base is kind for base in type.__dict__["__mro__"].__get__(type(array))):
        base = kind.base.__get__(array)
        if base is None:
            break
        array = base
    return array


def _subclasses(kind: type) -> list[type]:
    found: dict[int, type] = {}
    pending: list[type] = type.__subclasses__(kind)
    while pending:
        kind = pending.pop()
        if id(kind) not in found:
            found[id(kind)] = kind
            pending += type.__subclasses__(kind)
    return list(found.values())


def _start_tracemalloc(undo: contextlib.ExitStack) -> bool:
    """Have allocations traced where NumPy is loaded; say whether they are."""
    if loaded("numpy") is None:
        return False
    if not tracemalloc.is_tracing():
        tracemalloc.start(_MOST_FRAMES)
        undo.callback(tracemalloc.stop)
    return True


@contextlib.contextmanager
def _dispatch_mode(dispatched: Dispatched) -> Iterator[None]:
    """Hand every operation of torch in this thread to a function; nothing where torch is not loaded."""
    torch, modes = loaded("torch"), loaded("torch.utils._python_dispatch")
    base = member(modes, "TorchDispatchMode") if modes else None
    stack = [member(torch, "_C", name) for name in _STACK_CALLS] if torch else []
    if torch is None or base is None or not all(stack):
        yield
        return
    mode = _mode_type(torch, base, dispatched)()
    mode.__enter__()
    try:
        yield
    finally:
        _take_out(mode, *stack)


_STACK_CALLS = (
    "_len_torch_dispatch_stack",
    "_get_dispatch_stack_at",
    "_pop_torch_dispatch_stack",
    "_push_on_torch_dispatch_stack",
)


def _mode_type(torch: ModuleType, base: Any, dispatched: Dispatched) -> Any:
    def dispatch(_mode: Any, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(function, args, kwargs or {})

    members = {
        "supports_higher_order_operators": True,  # else such an operator raises under any mode that is not known to it
        "ignore_compile_internals": classmethod(lambda _: True),  # else torch.compile does not compile under a mode
    }
    kind: Any = type(base)("SiteMode", (base,), members)
    # Put in afterwards: what stands in the class is wrapped in a call that imports Dynamo (1 s, 22 MiB) when it runs.
    disable = member(torch, "_dynamo", "disable") if loaded("torch._dynamo") is not None else None
    kind.__torch_dispatch__ = dispatch if disable is None else disable(dispatch)
    return kind


def _take_out(mode: Any, count: Any, at: Any, pop: Any, push: Any) -> None:
    """Take a mode off the stack wherever it stands: what runs inside may have left modes of its own above it."""
    if all(at(index) is not mode for index in range(count())):
        return
    above = []
    while (top := at(count() - 1)) is not mode:
        above.append(pop(getattr(top, "_mode_key", None)))  # some of torch's own have a place of their own
    mode.__exit__(None, None, None)
    for other in reversed(above):
        push(other)
