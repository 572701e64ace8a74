"""Objects of this very process that stand for others: a Popen, a pool, a data loader's workers.

A pool starts new workers for those that are killed under it, so it is shut its own way first. And whoever holds the
object is whose process it is: a fixture's list of servers makes them the fixture's, whichever test started them.
"""

from __future__ import annotations

import gc
import itertools
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class LiveObject:
    """An object, and the processes that it stands for. It is looked at and let go of, never kept."""

    value: object
    pids: frozenset[int]
    shut: Callable[[], object] | None
    """Ends its processes its own way; None where they are ended like any other."""
    made: int | None = None
    """When it was made, as `locks_made()` counts; None where that cannot be told."""


class _Kind(NamedTuple):
    module: str
    name: str
    pids: Callable[[Any], Iterable[int | None]]
    shut: Callable[[Any], object] | None = None
    lock: Callable[[Any], object] | None = None
    """Finds the lock that is made together with it, and before its processes."""


def _shut_loader(loader: Any) -> None:
    iterator, loader._iterator = loader._iterator, None
    iterator._shutdown_workers()


def _pids_of(processes: Iterable[Any]) -> list[int | None]:
    return [process.pid for process in processes]


_PROCESS = _Kind("multiprocessing.process", "BaseProcess", lambda value: [value.pid])
_KINDS = (
    _Kind("subprocess", "Popen", lambda value: [value.pid]),
    _PROCESS,
    _Kind(
        "multiprocessing.pool",
        "Pool",
        lambda value: _pids_of(value._pool),
        lambda value: value.terminate(),
        lambda value: value._inqueue._rlock,
    ),
    _Kind(
        "multiprocessing.managers", "BaseManager", lambda value: [value._process.pid], lambda value: value.shutdown()
    ),
    _Kind(
        "concurrent.futures.process",
        "ProcessPoolExecutor",
        lambda value: _pids_of((value._processes or {}).values()),
        lambda value: value.shutdown(wait=False, cancel_futures=True),
        lambda value: value._call_queue._rlock,
    ),
    _Kind(
        "torch.utils.data.dataloader",
        "_MultiProcessingDataLoaderIter",
        lambda value: _pids_of(value._workers),
        lambda value: value._shutdown_workers(),
    ),
    # Beside its iterator: it would hand the dead one out again.
    _Kind("torch.utils.data.dataloader", "DataLoader", lambda value: _pids_of(value._iterator._workers), _shut_loader),
    _Kind("asyncio.base_subprocess", "BaseSubprocessTransport", lambda value: [value.get_pid()]),
    _Kind("pexpect.pty_spawn", "spawn", lambda value: [value.pid]),
)
_MODULES_WITH_LOCKS = frozenset(kind.module for kind in _KINDS if kind.lock is not None)


def live_objects(pids: Collection[int]) -> list[LiveObject]:
    """Find the objects that stand for some of these processes.

    Args:
        pids: direct children of this process.
    """
    wanted = frozenset(pids)
    kinds = list(_loaded_kinds())
    found = []
    by_type: dict[type, _Kind | None] = {}
    for value in gc.get_objects():
        kind_of = type(value)
        if kind_of not in by_type:
            by_type[kind_of] = next((kind for base, kind in kinds if issubclass(kind_of, base)), None)
        kind = by_type[kind_of]
        own = _own_pids(kind, value) & wanted if kind is not None else None
        if kind is not None and own:
            found.append(LiveObject(value, own, _bound(kind.shut, value), _made(kind, value)))
    return found


def may_be_pools() -> bool:
    """Tell whether anything is loaded that makes pools of processes, without a walk of the heap."""
    return any(kind.lock is not None for _, kind in _loaded_kinds())


def locks_made() -> int | None:
    """Count the locks that `multiprocessing` has made here: by its own lock a pool can be told from an older one.

    An executor starts its processes when it is first given work: it may be older than the test that gives it. None
    where there can be no pool yet, or where the count is not to be had.
    """
    if sys.modules.keys().isdisjoint(_MODULES_WITH_LOCKS):
        return None
    module = sys.modules.get("multiprocessing.util")
    counter = vars(module).get("_afterfork_counter") if type(module) is ModuleType else None
    told = repr(counter) if type(counter) is itertools.count else ""
    return int(told[len("count(") : -1]) if told else None


def pids_of_multiprocessing() -> frozenset[int]:
    """List the processes that `multiprocessing` has started here, without a walk of the heap."""
    module = sys.modules.get("multiprocessing.process")
    started = list(vars(module).get("_children", ())) if type(module) is ModuleType else []
    return frozenset(pid for process in started for pid in _own_pids(_PROCESS, process))


def shut_down(objects: Iterable[LiveObject], limit_seconds: float) -> None:
    """End the processes of pools and data loaders their own way.

    It goes on in a thread of its own: one that hangs is left to the signals that follow.

    Args:
        objects: what to shut; those that have no way of their own are passed over.
        limit_seconds: how long to wait for all of them together.
    """
    calls = [found.shut for found in objects if found.shut is not None]
    if not calls:
        return
    thread = threading.Thread(target=_call_each, args=(calls,), name="gpuclean-shut-down", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # there is no thread to be had: the signals come next
        return
    thread.join(limit_seconds)


def _call_each(calls: list[Callable[[], object]]) -> None:
    while calls:
        try:
            calls.pop()()
        except BaseException:  # half made, or broken by the test: the signals come next
            continue


def _loaded_kinds() -> Iterator[tuple[type, _Kind]]:
    for kind in _KINDS:
        module = sys.modules.get(kind.module)
        found = vars(module).get(kind.name) if type(module) is ModuleType else None
        if isinstance(found, type):
            yield found, kind


def _own_pids(kind: _Kind | None, value: object) -> frozenset[int]:
    try:
        return frozenset(pid for pid in kind.pids(value) if type(pid) is int) if kind else frozenset()
    except Exception:  # not started yet, closed, or made without __init__
        return frozenset()


def _made(kind: _Kind, value: object) -> int | None:
    if kind.lock is None:
        return None
    try:
        lock = kind.lock(value)
        registry = list(sys.modules["multiprocessing.util"]._afterfork_registry.items())
        return next((int(key[0]) for key, other in registry if other is lock), None)
    except Exception:  # half made, or none that makes a lock
        return None


def _bound(shut: Callable[[Any], object] | None, value: object) -> Callable[[], object] | None:
    return None if shut is None else lambda: shut(value)
