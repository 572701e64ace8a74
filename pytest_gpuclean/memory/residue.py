"""What a leaking test left besides memory: threads, file descriptors, shared memory. Information, never a verdict."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator

from pytest_gpuclean.memory.descriptors import describe, describe_sockets, open_descriptors, target_of
from pytest_gpuclean.memory.places import Place, Places, places_of
from pytest_gpuclean.memory.shared_memory import Segment, Shared, has_mapped_any, held_open, is_shared, mapped
from pytest_gpuclean.units import format_size, shorten

_MOST_LINES = 6
_LONGEST_NAME = 60
_PARTS = ("ident", "native_id", "name")

ThreadKey = tuple[int, int | None]
"""Identifier and the system's number: an identifier alone is given to another thread once its first owner has ended."""


class Residue:
    """Knows what was there at the last mark, and names what has come since.

    A descriptor is known by its number: what has taken the number of one that was closed since the mark is not seen.
    """

    def __init__(self, spared: Callable[[], Collection[int]] = tuple, places: Places | None = None) -> None:
        """Set it up.

        Args:
            spared: gives descriptors that are none of the tests'.
            places: names places in code.
        """
        self._spared = spared
        self._places = Places() if places is None else places
        self._threads: frozenset[ThreadKey] = frozenset()
        self._descriptors: frozenset[int] = frozenset()
        self._segments: frozenset[Segment] = frozenset()

    def mark(self) -> None:
        """Take everything that is there now as known. Some 30 us, unless shared memory is in use or was."""
        self._threads = frozenset(_threads()[0].values())
        self._descriptors = open_descriptors()
        # What is mapped and was not touched yet, or is swapped out, is in use by no figure of the system.
        self._segments = frozenset(mapped()) if self._segments or has_mapped_any() else frozenset()

    def left(self) -> tuple[str, ...]:
        """Name what is there now and was not at the last mark, a line each, a few lines at most.

        Shared memory is named once.
        """
        new = sorted(open_descriptors() - self._descriptors - frozenset(self._spared()))
        targets = {number: target for number in new if (target := target_of(number))}
        segments = {number: target for number, target in targets.items() if is_shared(target)}
        others = {number: target for number, target in targets.items() if number not in segments}
        lines = [*self._shared_lines(segments), *self._thread_lines(), *_descriptor_lines(others)]
        if len(lines) <= _MOST_LINES:
            return tuple(lines)
        kept = lines[: _MOST_LINES - 1]
        return (*kept, f"and {len(lines) - len(kept)} more")

    def _shared_lines(self, segments: dict[int, str]) -> Iterator[str]:
        found: dict[Segment, Shared] = {}
        for number, path in segments.items():
            held = held_open(number, path)
            if held is not None:
                found[held[0]] = held[1]
        now = mapped()
        for segment, shared in now.items():
            if segment not in self._segments:
                found.setdefault(segment, shared)
        self._segments = frozenset(now)
        memory = [shared for shared in found.values() if not shared.is_semaphore]
        for shared in sorted(memory, key=lambda shared: -shared.size_bytes):
            yield f"{shorten(shared.path, _LONGEST_NAME)} {format_size(shared.size_bytes)}"
        yield from _counted(["semaphore"] * (len(found) - len(memory)))

    def _thread_lines(self) -> Iterator[str]:
        own = threading.get_ident()
        known, names = _threads()
        new = [ident for ident, key in known.items() if key not in self._threads and ident != own]
        for ident in new:
            place = self._standing(ident)
            if place is not None:  # else it has just ended
                name = f"thread '{names[ident]}'" if ident in names else "a thread without a name"
                yield f"{name} stands in {self._places.call(place)}"

    def _standing(self, ident: int) -> Place | None:
        # The frames of all threads, with this one: not to be kept in a variable here, which would be a cycle.
        return self._places.standing(places_of(sys._current_frames().get(ident)))


def _threads() -> tuple[dict[int, ThreadKey], dict[int, str]]:
    """List the threads that run Python code, by identifier: their keys, and the names of those that have one."""
    keys: dict[int, ThreadKey] = {ident: (ident, None) for ident in sys._current_frames()}
    names: dict[int, str] = {}
    for thread in threading.enumerate():
        try:  # by the class that all threads are of: one of the user's may have put anything in its place
            ident, native, name = (getattr(threading.Thread, part).fget(thread) for part in _PARTS)
        except Exception:
            continue
        if ident in keys:
            keys[ident] = ident, native
            names[ident] = shorten(name, _LONGEST_NAME)
    return keys, names


def _descriptor_lines(targets: dict[int, str]) -> Iterator[str]:
    """Say what descriptors stand for: sockets and files first, what drivers open for themselves last."""
    sockets = {number for number, target in targets.items() if target.startswith("socket:")}
    words = describe_sockets(sockets)
    rest = [describe(target) for number, target in targets.items() if number not in sockets]
    devices = [word for word in rest if word.startswith("/dev/")]
    listening = [word for word in words.values() if word.endswith("(listening)")]
    yield from _counted(listening)
    yield from _counted([word for word in words.values() if word not in listening])
    yield from _counted([word for word in rest if word not in devices])
    yield from _counted(devices)


def _counted(words: list[str]) -> Iterator[str]:
    for word, count in Counter(words).items():
        yield f"{word}, {count} of them" if count > 1 else word
