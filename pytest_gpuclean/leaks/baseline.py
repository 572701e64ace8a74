"""Leaks that are known: what of a leak is new, and what of the known ones is no more.

A cache that is made on first use is kept by whichever test comes first: under a random order and in workers of
pytest-xdist another one each time. Its holder stays, so that a known leak is found by its holder too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.units import KiB, format_size

_MOST_HOLDERS = 5
_SUBSCRIPT = re.compile(r'\[(?:"[^"]*"|[^\[\]"])*\]')
_MOVES = re.compile(r"(?<=Thread-)\d+|(?<=\.py:)\d+|0x[0-9a-f]+")

Kind = Literal["test", "fixture", "module", "session"]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Known:
    """A leak that is known."""

    where: str
    """The test; the class or module of a fixture; the module; nothing for what belongs to the whole run."""
    kind: Kind
    fixture: str = ""
    """The name of the fixture that leaked."""
    device: str
    source: str
    """Whose figure it is, such as `torch`."""
    holders: tuple[str, ...] = ()
    """What holds it, without what changes from run to run; empty where that was not looked up."""
    leaked_bytes: int

    @property
    def owner(self) -> tuple[str, str, str, str, str]:
        """Who leaks where: one leak at a time."""
        return (self.where, self.kind, self.fixture, self.device, self.source)

    @property
    def slack_bytes(self) -> int:
        """By how much more or less it is still the same: allocators round, and a table grows by an entry."""
        return max(64 * KiB, self.leaked_bytes // 100)

    @property
    def adds_up(self) -> bool:
        """Whether it is what many tests have kept together."""
        return self.kind in ("module", "session")

    def has_holder_of(self, other: Known) -> bool:
        """Whether the same thing holds both."""
        same_memory = (self.device, self.source) == (other.device, other.source)
        return same_memory and not set(self.holders).isdisjoint(other.holders)

    def is_other_than(self, other: Known) -> bool:
        """Whether it is known that something else holds this one."""
        return bool(self.holders and other.holders) and not self.has_holder_of(other)

    def __str__(self) -> str:
        what = f"fixture {self.fixture!r} of {self.where or 'the run'}" if self.fixture else self.where
        return f"{what or 'the whole run'} on {self.device}"


def known_from(leak: Leak, test: str) -> Known | None:
    """Write a leak down as one that is known; None for a peak, which keeps nothing.

    Args:
        leak: what leaked.
        test: the node id of the test at which it is told.
    """
    if leak.kind == "peak":
        return None
    path = test.partition("[")[0]
    module = path.partition("::")[0]
    where = {
        "test": test,
        "module": leak.name,
        "session": "",
        "fixture": {"class": path.rpartition("::")[0], "module": module}.get(leak.scope, ""),
    }[leak.kind]
    holders = leak.explanation.holders if leak.explanation is not None else ()
    return Known(
        where=where,
        kind=leak.kind,
        fixture=leak.name if leak.kind == "fixture" else "",
        device=leak.device,
        source=leak.source,
        holders=tuple(sorted({stable_name(holder.chain) for holder in holders[:_MOST_HOLDERS]})),
        leaked_bytes=leak.leaked_bytes,
    )


def stable_name(chain: str) -> str:
    """Name a holder without what changes from run to run: `test_a.CACHE` for `test_a.CACHE["k"][3] -> list`."""
    return _MOVES.sub("", _SUBSCRIPT.sub("", chain.partition(" -> ")[0])).strip()


class Acquaintance:
    """What one process has met of the leaks that are known: each holds good once."""

    def __init__(self, known: Iterable[Known]) -> None:
        self._by_owner = {one.owner: one for one in known}
        self._met: set[Known] = set()
        self._lent: dict[Known, str] = {}
        """Those that stood for a leak of somebody else, and whose."""

    def meet(self, found: Known) -> str:
        """Take a leak in.

        Returns:
            What is new about it, in words; the empty text where it is known.
        """
        own = self._by_owner.get(found.owner)
        if own is not None and own.is_other_than(found):
            own = None
        need = found.leaked_bytes
        if own is not None and own not in self._lent:
            self._met.add(own)
            if need <= own.leaked_bytes + own.slack_bytes:
                return ""
            need -= own.leaked_bytes
        lender = min(
            (one for one in self._by_owner.values() if self._may_lend(one, found, need)), default=None, key=_size
        )
        if lender is not None:
            self._lent[lender] = found.where
            return ""
        if own is None:
            return "it is new"
        if own in self._lent:
            return f"{self._lent[own]} has kept what is known of {own.holders[0]} already"
        return f"it is larger than the {format_size(own.leaked_bytes)} that are known"

    def _may_lend(self, one: Known, found: Known, need: int) -> bool:
        is_free = one not in self._met and one not in self._lent
        return is_free and one.has_holder_of(found) and need <= one.leaked_bytes + one.slack_bytes


@dataclass(frozen=True, slots=True)
class Changes:
    """What of the known leaks a run has not shown, or shown less of."""

    smaller: tuple[tuple[Known, int], ...] = ()
    """Each with what it has now."""
    cured: tuple[Known, ...] = ()
    """They leak no more."""
    gone: tuple[Known, ...] = ()
    """Their tests are not there any more."""


def changes(
    known: Iterable[Known], found: Iterable[Known], collected: Collection[str], *, is_split: bool = False
) -> Changes:
    """Compare what is known with what a whole run has shown.

    Args:
        known: what is known.
        found: every leak of the run, in all of its processes, that nothing else allows.
        collected: the node ids of its tests.
        is_split: whether several processes shared the tests: of what adds up, each has shown a part.
    """
    largest = {one.owner: one for one in merged(found)}
    modules = {test.partition("[")[0].partition("::")[0] for test in collected}
    smaller, cured, gone = [], [], []
    for one in known:
        now = largest.get(one.owner)
        if is_split and one.adds_up and (not one.where or _is_there(one, collected, modules)):
            now = one
        if now is not None and not now.is_other_than(one):
            if now.leaked_bytes < one.leaked_bytes - one.slack_bytes:
                smaller.append((one, now.leaked_bytes))
        elif one.where and not _is_there(one, collected, modules):
            gone.append(one)
        elif not any(one.has_holder_of(other) for other in largest.values()):
            cured.append(one)
    return Changes(tuple(smaller), tuple(cured), tuple(gone))


def merged(found: Iterable[Known]) -> list[Known]:
    """Make one of the leaks of one owner: reruns and workers show them again. In a stable order."""
    largest: dict[tuple[str, ...], Known] = {}
    for one in found:
        other = largest.get(one.owner)
        if other is None or other.leaked_bytes < one.leaked_bytes:
            largest[one.owner] = one
    return sorted(largest.values())


def renewed(known: Iterable[Known], found: Iterable[Known], *, is_split: bool = False) -> list[Known]:
    """Make the new list: what the run has shown, with the old figure where it is the same leak still.

    Args:
        known: the old list.
        found: every leak of the run.
        is_split: whether several processes shared the tests: what adds up stays known by its larger figure.
    """
    before = {one.owner: one for one in known}
    if is_split:
        found = [*found, *(one for one in before.values() if one.adds_up)]
    return sorted(_as_before(before.get(one.owner), one) for one in merged(found))


def not_collected(known: Iterable[Known], collected: Collection[str]) -> Iterator[str]:
    """Name the files of known leaks of which nothing was collected."""
    modules = {test.partition("[")[0].partition("::")[0] for test in collected}
    for file in dict.fromkeys(one.where.partition("[")[0].partition("::")[0] for one in known):
        if file and file not in modules:
            yield file


def _as_before(before: Known | None, now: Known) -> Known:
    if before is None or abs(before.leaked_bytes - now.leaked_bytes) > before.slack_bytes or before.is_other_than(now):
        return now
    return replace(now, leaked_bytes=before.leaked_bytes, holders=now.holders or before.holders)


def _is_there(one: Known, collected: Collection[str], modules: Collection[str]) -> bool:
    if one.kind == "test":
        return one.where in collected
    return one.where.partition("::")[0] in modules


def _size(one: Known) -> tuple[int, Known]:
    return (one.leaked_bytes, one)
