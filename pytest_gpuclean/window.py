"""What an engine keeps of the window that is open, and what two readings of it tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pytest_gpuclean.cleanup.settle import KnownThreads
from pytest_gpuclean.ladder import LetGo
from pytest_gpuclean.leaks.ledger import Ledger
from pytest_gpuclean.memory.gauge import ever_allocated
from pytest_gpuclean.memory.peaks import Peak
from pytest_gpuclean.model.cleanup import CleanupResult
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.memory import ARRAYS, HEAP, Account, Bytes, FixtureHolding, Holdings, Reading, Snapshot
from pytest_gpuclean.model.processes import LeftProcess

HOST_KEPT_BYTES = 16 * 1024
"""How far the runner's own reports and logs move the heap in every test, and more."""
LeakKind = Literal["test", "fixture", "module", "session", "peak"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """By which terms a window is judged."""

    threshold_bytes: int
    judges: bool = True
    """Whether leaks are looked for at all; cleaning goes on without."""
    explains: bool = True
    """Whether who holds a leak of the test is looked up."""
    peak_limit_bytes: int | None = None
    scope_threshold_bytes: int | None = None
    """For fixtures, the module and the session; the test's own threshold where it is None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What ends together with a window."""

    module: bool = False
    session: bool = False


class Course(NamedTuple):
    """What was in use over a window."""

    begin: Snapshot
    end: Snapshot
    peaks: Bytes
    """The most that was in use in between; an account that is missing was not measured."""


@dataclass(slots=True, kw_only=True)
class Window:
    """The window that is open now."""

    test: str
    module: str
    terms: Terms
    let_go: LetGo
    begin: Snapshot
    threads: KnownThreads
    is_judged: bool = False
    waits: bool = False
    """Whether a doubt about the test waits until its report is made."""
    latest: Snapshot
    """The last reading that was taken in it."""
    has_acted: bool = False
    """Whether anything was let go, cleaned or collected since that reading."""
    leaks: list[Leak] = field(default_factory=list)
    left: list[LeftProcess] = field(default_factory=list)
    given_back_bytes: int = 0
    cleanups: list[CleanupResult] = field(default_factory=list)
    seconds: float = 0.0
    first: Snapshot | None = None
    """What it began with, where its peak is looked at."""
    peak: Peak | None = None
    """None where nobody asks for it."""

    def renew(self, test: str, terms: Terms, let_go: LetGo, threads: KnownThreads) -> None:
        """Make it the window of the next test, which begins where this one ended."""
        self.test, self.terms, self.let_go, self.threads = test, terms, let_go, threads
        self.peak = self.first = None
        if self.is_judged:
            self.is_judged = self.waits = self.has_acted = False
            self.leaks, self.left, self.cleanups, self.given_back_bytes = [], [], [], 0


def leak(kind: LeakKind, name: str, account: Account, size: int, threshold: int, **more: Any) -> Leak:
    """Put a leak into words and figures."""
    return Leak(
        kind=kind,
        name=name,
        device=account.device,
        source=account.source,
        leaked_bytes=size,
        threshold_bytes=threshold,
        **more,
    )


def peaks_over(snapshot: Snapshot, window: Window) -> Iterator[Leak]:
    """Give each device whose peak is above the limit of the window."""
    limit = window.terms.peak_limit_bytes
    if limit is None or window.peak is None:
        return
    for account, peak in window.peak.highest(snapshot).items():
        if peak > limit:
            yield leak("peak", window.test, account, peak, limit)


def given_back(before: Snapshot, after: Snapshot) -> int:
    """What devices have back: from live objects or from caches, whichever is more."""
    total = 0
    later = {reading.account: reading for reading in after.readings}
    for reading in before.readings:
        now = later.get(reading.account)
        if now is not None:
            live = reading.held_bytes - now.held_bytes
            total += max(0, live, reading.reserved_bytes - now.reserved_bytes)
    return total


def has_allocated(begin: Snapshot, end: Snapshot) -> bool:
    """Whether anything was allocated between two readings, freed again or not."""
    before = ever_allocated(begin)
    changed = any(before.get(account) != total for account, total in ever_allocated(end).items())
    return changed or any(_is_new(reading, begin) for reading in end.readings if reading.total_bytes is None)


def _is_new(reading: Reading, begin: Snapshot) -> bool:
    """Whether a source that keeps no total shows another figure than before."""
    if reading.account == HEAP:
        return False
    earlier = next((other for other in begin.readings if other.account == reading.account), None)
    return earlier is None or earlier.held_bytes != reading.held_bytes or earlier.peak_bytes != reading.peak_bytes


def heap_of(snapshot: Snapshot) -> int | None:
    """What the heap holds, where it was read."""
    # The gauge reads it after everything else.
    if snapshot.readings and snapshot.readings[-1].source == HEAP.source:
        return snapshot.readings[-1].held_bytes
    return None


def is_as_before(begin: Snapshot, end: Snapshot, *, exactly: bool) -> bool:
    """Whether a window ends with what it began with, the heap moved by no more than the runner's own records do.

    Args:
        begin: the reading at its start.
        end: the reading at its end.
        exactly: whether devices must not have been used at all; else what was freed again does not count.
    """
    if len(begin.readings) != len(end.readings):
        return False
    for before, after in zip(begin.readings, end.readings, strict=True):
        if before is after:
            continue
        if before.source != after.source or before.device != after.device:
            return False
        if before.source == HEAP.source:
            if abs(after.held_bytes - before.held_bytes) > HOST_KEPT_BYTES:
                return False
        elif before.held_bytes != after.held_bytes or (exactly and _was_used(before, after)):
            return False
    return True


def _was_used(before: Reading, after: Reading) -> bool:
    return before.total_bytes is None or before != after


def holdings(ledger: Ledger, snapshot: Snapshot, *, has_window: bool) -> Holdings:
    """Tell what is held right now, and by whom as far as the ledger knows.

    Args:
        ledger: booked up to now.
        snapshot: the reading of this moment.
        has_window: whether a test is being looked after at all.
    """
    by_test: dict[str, int] = {}
    for account, size in ledger.test.items():
        if account != ARRAYS:  # they are in the heap too
            by_test[account.device] = by_test.get(account.device, 0) + size
    fixtures = [
        FixtureHolding(share.name, share.scope, account.device, size)
        for share in ledger.fixtures.values()
        for account, size in share.held.items()
        if size > 0 and account != ARRAYS
    ]
    return Holdings(
        snapshot=snapshot,
        by_test=by_test if has_window else None,
        by_fixtures=tuple(sorted(fixtures, key=lambda fixture: -fixture.held_bytes)),
    )
