"""Who is judged, and by what: a test, the fixtures that ended with it, and what adds up over a module or the run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any

from pytest_gpuclean.cleanup import CLEANERS
from pytest_gpuclean.cleanup.garbage import GarbageCleaner
from pytest_gpuclean.cleanup.settle import KnownThreads, Patience
from pytest_gpuclean.interpreter import frozen_objects
from pytest_gpuclean.ladder import Climb, LetGo, doubtful, not_returned
from pytest_gpuclean.leaks.ledger import Drift, FixtureShare, Ledger, add_with_heap
from pytest_gpuclean.leaks.verdict import judge, judged_growth
from pytest_gpuclean.memory.census import host_storages
from pytest_gpuclean.memory.gauge import Gauge, held, rounds
from pytest_gpuclean.memory.imports import ImportWatch
from pytest_gpuclean.memory.reach import Walk
from pytest_gpuclean.model.memory import ARRAYS, HEAP, Account, Bytes

_SHORT_WALK = 20_000
"""Objects to look at in a value of the runner; what a longer walk would find is let go of only on a doubt."""
_LATE_FREE_SECONDS = (0.25, 0.05)
_THREAD_END_SECONDS = (2.0, 0.5)
"""How long to wait for a suspect, at first and at least: for frees that come late, for new threads that end."""

FixtureValues = Callable[[Collection[int]], Iterable[tuple[int, list[Any]]]]


class Judge:
    """Climbs the ladder for a test, for fixtures that ended, and for what adds up."""

    def __init__(
        self,
        gauge: Gauge,
        ledger: Ledger,
        settle_seconds: float,
        fixture_values: FixtureValues,
        opaque_packages: Collection[str],
        on_wait: Callable[[str], None],
    ) -> None:
        self.imports = ImportWatch()
        self.trouble: list[str] = []
        """What failed while a suspect was looked into."""
        self.gauge = gauge
        self.ledger = ledger
        self.settle_seconds = settle_seconds
        self.fixture_values = fixture_values
        self.opaque_packages = opaque_packages
        self.on_wait = on_wait
        self.patience = Patience(*_LATE_FREE_SECONDS)
        self.thread_patience = Patience(*_THREAD_END_SECONDS)
        self.is_exhausted = False
        """Whether the dear rungs have been climbed since anything else happened in this window."""
        self._waiting: Climb | None = None
        self._counted = False
        self._counted_storages: Collection[tuple[str, int]] = ()
        self.older_storages: Collection[tuple[str, int]] = ()
        """What the last count of arrays before this window has shown: none of that came to life in it."""
        self.heap_at_count = 0
        self.uncounted_bytes: int | None = None
        self.caches = [cleaner() for cleaner in CLEANERS if cleaner is not GarbageCleaner]

    def begin_window(self, heap_bytes: int | None, threshold: int) -> None:
        """Start afresh for a new window.

        Args:
            heap_bytes: what the heap held when it was opened, where that was read.
            threshold: how far the heap may have moved for the last count of arrays to be good enough.
        """
        moved = None if heap_bytes is None else heap_bytes - self.heap_at_count
        self.uncounted_bytes = None if moved is None or abs(moved) > threshold else max(0, moved)
        self.older_storages = self._counted_storages
        self.imports.mark()
        self.is_exhausted = False
        self._waiting = None

    # -- who is judged ------------------------------------------------------------------------------------------

    def judge_test(
        self, threshold: int, let_go: LetGo, threads: KnownThreads, *, may_wait: bool = False
    ) -> Bytes | None:
        """Judge the test of the open window; return what it leaked, by account.

        Where it may wait and there is a doubt left, None: the runner still keeps what others may want for the
        test's report, so the same is asked again when that is made.
        """
        share = self.ledger.test
        climb = self._waiting or Climb(self, [share], threads)

        def doubt() -> list[Account]:
            return doubtful(share, climb, threshold)

        if self._waiting is None:
            climb.run(doubt, let_go)
        else:
            if climb.counted:  # what has gone since went with the fixtures that ended, or was freed by them
                ended = [fixture.held for fixture in self.ledger.ended]
                self.ledger.book_given_back(self.census(), ended or [share])
            climb.let_go_of_all(doubt, let_go)
        self._waiting = climb if may_wait and doubt() else None
        if self._waiting is not None:
            return None
        fell = any(size < -threshold for size in share.values())
        if fell or (not climb.has_looked and self._is_due_for_a_look(threshold)):
            climb.look(count_anew=share.get(HEAP, 0) < -threshold)
        if not climb.counted:
            self.ledger.expect_returned(share)
        return self._charge(climb, threshold)

    def _is_due_for_a_look(self, threshold: int) -> bool:
        """Whether live fixtures may have grown by more than a threshold, in small steps."""
        if not self.ledger.fixtures:
            return False
        share = self.ledger.test
        return any(a != HEAP and size + share.get(a, 0) > threshold for a, size in self.ledger.unlooked.items())

    def _charge(self, climb: Climb, threshold: int) -> Bytes:
        share = self.ledger.test
        leaked: Bytes = {}
        for account in {*share, *climb.credits}:
            growth = judged_growth(share, account, climb.uncounted_bytes, climb.heap_of(share))
            # A count of arrays also shows what earlier tests kept since the last count.
            uncounted = max(0, share.get(account, 0) - growth)
            drift = climb.unlooked.get(account, 0) + uncounted
            # What fixtures have lost of the arrays is in the fall of the heap.
            owned = climb.credits.get(ARRAYS if account == HEAP else account, 0)
            split = judge(growth, owned, drift, threshold)
            if split.kept_bytes < -threshold:
                self.ledger.note_fall(account, -split.kept_bytes)
            elif account != HEAP:
                if split.leaked_bytes:
                    leaked[account] = split.leaked_bytes
                self.ledger.drift(account, split.kept_bytes + uncounted, is_looked_at=climb.has_looked)
            elif not climb.counted:  # else the arrays have been counted: the rest is no tensor and set aside
                self.ledger.drift(account, split.kept_bytes)
        return leaked

    def judge_block(self, share: Bytes, threshold: int, threads: KnownThreads) -> Bytes:
        """Judge a stretch of code that has a share of its own."""
        climb = Climb(self, [share], threads)
        climb.run(lambda: doubtful(share, climb, threshold))
        self.is_exhausted = False  # the test goes on
        left = [account for account in doubtful(share, climb, threshold) if account != HEAP]
        heap_bytes = climb.heap_of(share)
        return {a: judged_growth(share, a, heap_bytes=heap_bytes) - climb.credits.get(a, 0) for a in left}

    def judge_ended_fixtures(
        self, threshold: int, let_go: LetGo, threads: KnownThreads
    ) -> Iterator[tuple[FixtureShare, Bytes]]:
        """Judge the fixtures that came to their end in this window; give what each did not give back."""
        self.book_falls(threshold)
        ended = [share for share in self.ledger.ended if share.is_certain]
        climb = Climb(self, [share.held for share in ended], threads)
        climb.run(lambda: [a for s in ended for a in not_returned(s, climb, threshold)], let_go)
        for share in ended if not climb.counted else ():  # the heap says that it is back, by now
            self.ledger.expect_returned(share.held)
        for share in ended:
            leaked: Bytes = {}
            for account in list(share.held):
                size = judged_growth(share.held, account, heap_bytes=climb.heap_of(share.held))
                size -= share.fallen.get(account, 0)
                own = size - climb.credits.get(account, 0)
                if account == HEAP:
                    self.ledger.drift(account, min(own, 0 if climb.counted else threshold))
                elif own > threshold:
                    leaked[account] = own
                else:
                    climb.credits[account] = max(0, climb.credits.get(account, 0) - max(0, size))
                    self.ledger.drift(account, own)
            yield share, leaked

    def judge_drift(self, drift: Drift, threshold: int, let_go: LetGo, threads: KnownThreads) -> Bytes:
        """Judge what tests kept below the threshold, where it adds up."""
        climb = Climb(self, [], threads)

        def doubt() -> list[Account]:
            for account, size in climb.take_credits():
                self.ledger.drift(account, -size)
            return [a for a, size in drift.kept.items() if size > threshold and not (a == HEAP and climb.counted)]

        climb.run(doubt, let_go)
        if climb.counted and drift is not self.ledger.session:
            self.ledger.leave_to_session(drift, ARRAYS, drift.kept.get(HEAP, 0))
        leaked = {a: self.ledger.forget_drift(a, drift) for a in doubt() if a != HEAP}
        self.ledger.forget_drift(HEAP, drift)
        return leaked

    def holds_memory(self, value: object) -> bool:
        """Tell whether watched memory is reachable from a value, within a short walk."""
        found = Walk(self.opaque_packages, limit=_SHORT_WALK).measure([value])
        return any(account != ARRAYS or self.gauge.host_watched for account in found)

    def held_by(self, values: Collection[object]) -> dict[int, int]:
        """Tell which of some objects (by `id`) the values of live fixtures hold, and by which fixture (its key)."""
        found: dict[int, int] = {}
        walk = Walk(self.opaque_packages)
        for key, roots in self.fixture_values(self.ledger.fixtures.keys()):
            walk.measure(roots)
            for value in values:
                if walk.has_reached(value):
                    found.setdefault(id(value), key)
        return found

    # -- looks --------------------------------------------------------------------------------------------------

    def first_census(self) -> Bytes:
        """Count the arrays in host memory once, where that is watched, as the start of all windows."""
        if self._counted or not self.gauge.host_watched:
            return {}
        self._counted = True
        return self.census()

    def book_census(self) -> None:
        """Count the arrays in host memory and charge the change to the present owner."""
        self.ledger.book(self.census())

    def book_earlier_arrays(self, threshold: int) -> None:
        """Count the arrays before a setup, where the heap has moved since the last count.

        What this test has not brought up itself was kept by those before it.
        """
        heap = held(self.gauge.read()).get(HEAP, self.heap_at_count)
        if abs(heap - self.heap_at_count) > threshold:
            is_tests = self.ledger.test.get(HEAP, 0) > threshold
            self.ledger.book_given_back(self.census(), [self.ledger.test] if is_tests else [])

    def look_at_new(self, key: int) -> None:
        """Note what a fixture reaches right after its setup, so that what tests add to it can be told."""
        walk = Walk(self.opaque_packages, rounds(self.gauge.read(with_heap=False)))
        unlooked = dict(self.ledger.unlooked)  # the look settles it
        added = self.reach(walk, new=key, with_arrays=self.gauge.host_watched)
        new = self.ledger.fixtures[key].held
        for account, size in added.items():  # its setup has added to the values of others
            # What these grew by in earlier windows stands in the drift, and is not the setup's.
            of_earlier = min(max(size, 0), max(unlooked.get(account, 0), 0))
            if of_earlier:
                self.ledger.drift(account, -of_earlier, is_looked_at=True)
            add_with_heap(new, account, of_earlier - size)

    def book_falls(self, threshold: int) -> None:
        """See whose memory it was that an ended fixture gave back beyond its own.

        Its setup may have put something into the value of another one, which had it until now; or tests before it have
        kept what went. The arrays are counted: who keeps as much again would not be seen by the next count.
        """
        fallen = self.ledger.fallen(threshold)
        if not fallen:
            return
        with_arrays = any(share.get(HEAP, 0) < -threshold for share in fallen)
        if with_arrays:
            self.ledger.book_given_back(self.census(), fallen)
        walk = Walk(self.opaque_packages, rounds(self.gauge.read(with_heap=False)))
        for account, size in self.reach(walk, with_arrays=with_arrays).items():
            add_with_heap(fallen[0], account, -size)
        self.ledger.note_falls(fallen, threshold)

    def reach(self, walk: Walk, new: int | None = None, *, with_arrays: bool = True) -> Bytes:
        live = self.ledger.fixtures
        reach = {key: walk.measure(roots) for key, roots in self.fixture_values(live.keys())}
        if new in reach:
            live[new].reach, live[new].is_looked_at, live[new].has_arrays = reach[new], True, with_arrays
        if not with_arrays:  # they are no part of what is measured here: leave them as they were
            for key, found in reach.items():
                found[ARRAYS] = live[key].reach.get(ARRAYS, 0)
        return self.ledger.credit(reach, with_arrays=with_arrays)

    def census(self) -> Bytes:
        snapshot = self.gauge.read()
        self.heap_at_count = held(snapshot).get(HEAP, 0)
        frozen = frozen_objects()
        if frozen:
            reason = f"the run has frozen {frozen} objects (gc.freeze): what only they hold is not counted"
            self.gauge.unavailable.setdefault("arrays", reason)
        storages = host_storages(partial(self.gauge.unavailable.setdefault, "arrays"))
        self._counted_storages = storages.keys()
        for ended in self.ledger.ended:
            self.ledger.expect_gone(ended.held)
        return {ARRAYS: sum(storages.values())}
