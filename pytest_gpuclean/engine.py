"""One window: opened before a test's setup, closed after its teardown. Reads, lets go, cleans and judges.

It knows no test runner: what that keeps alive it is told as a callable, and fixtures have a key, a name and a scope.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from pytest_gpuclean.cards import CardWatch
from pytest_gpuclean.cleaning import Cleaning
from pytest_gpuclean.cleanup.garbage import collect_young
from pytest_gpuclean.cleanup.interface import Cleaner, Occasion
from pytest_gpuclean.cleanup.settle import ThreadWatch
from pytest_gpuclean.closing import Closing
from pytest_gpuclean.dispatched import Dispatched
from pytest_gpuclean.ends import leaks_of_ends
from pytest_gpuclean.explaining import Explainer
from pytest_gpuclean.judging import Judge
from pytest_gpuclean.ladder import Kept, LetGo
from pytest_gpuclean.leaks.ledger import Ledger
from pytest_gpuclean.memory.gauge import Gauge, held
from pytest_gpuclean.memory.peaks import Peaks
from pytest_gpuclean.model.cleanup import CleanupResult, Level
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.memory import HEAP, Holdings, Snapshot
from pytest_gpuclean.model.records import TestRecord
from pytest_gpuclean.processes.watch import ProcessWatch
from pytest_gpuclean.window import (
    Course,
    Ending,
    Terms,
    Window,
    given_back,
    heap_of,
    holdings,
    is_as_before,
    leak,
    peaks_over,
)


def _keep(kept: Kept) -> None:
    pass


class Engine:
    """Keeps the ledger over a whole run, window by window."""

    def __init__(
        self,
        gauge: Gauge,
        *,
        cleaners: Sequence[Cleaner] | None = None,
        settle_seconds: float = 10.0,
        threshold_bytes: int = 1024 * 1024,
        fixture_values: Callable[[Collection[int]], Iterable[tuple[int, list[Any]]]] = lambda _: (),
        opaque_packages: Collection[str] = (),
        on_wait: Callable[[str], None] = lambda _: None,
        processes: ProcessWatch | None = None,
        explainer: Explainer | None = None,
        cards: CardWatch | None = None,
        keeps_course: bool = False,
    ) -> None:
        """Set the engine up.

        Args:
            gauge: reads the memory that is watched.
            cleaners: the steps of a cleanup; all that are known by default.
            settle_seconds: the upper bound of any wait.
            threshold_bytes: the growth from which on a wider fixture's value is looked at more closely.
            fixture_values: gives, for fixtures by their keys, the values to look into.
            opaque_packages: packages whose objects are not looked into.
            on_wait: told what a long wait is for.
            processes: looks after the processes that tests start; None where nobody does.
            explainer: says who holds what leaked; None where nobody asks.
            cards: looks at the GPU memory of those that were left; None where nobody does.
            keeps_course: whether to keep, of the window that was closed last, what was in use from begin to end.
        """
        self.gauge = gauge
        self.peaks = Peaks(gauge)
        self.course: Course | None = None
        """Of the window that was closed last, where courses are kept."""
        self._keeps_course = keeps_course
        self.processes = processes
        self.cards = cards
        self._explainer = explainer
        self.ledger = Ledger()
        read = partial(self._read, edge=False)
        self._cleaning = Cleaning(read, cleaners)
        self._threshold_bytes = threshold_bytes
        self.window: Window | None = None
        """The window that is open, if any."""
        self._watches_host = False
        self._resting: Window | None = None
        """The last window, where it ended with what it began with: the next one goes on from there."""
        self._latest: Snapshot | None = None
        """The reading that `close_unchanged` has just taken, where more than that was needed."""
        self._threads = ThreadWatch()
        self._dispatched = Dispatched(settle_seconds, on_wait)
        self._judge = Judge(gauge, self.ledger, settle_seconds, fixture_values, opaque_packages, on_wait)
        self._closing = Closing(
            self._judge, self._cleaning, read, processes=processes, cards=cards, explainer=explainer
        )

    def add_cleaners(self, cleaners: Iterable[Cleaner]) -> None:
        """Add steps that run before the known ones."""
        self._cleaning.add(cleaners)

    # -- the flow of a test -------------------------------------------------------------------------------------

    def open(self, test: str, module: str, terms: Terms, let_go: LetGo = _keep) -> None:
        """Open a window before the setup of a test."""
        begin = time.perf_counter()
        window, self._resting = self._resting, None
        threads = self._threads.known()
        if window is None or window.module != module:
            snapshot = self._first_reading(module)
            window = Window(
                test=test, module=module, terms=terms, let_go=let_go, begin=snapshot, latest=snapshot, threads=threads
            )
        else:
            self.ledger.open(module)
            window.renew(test, terms, let_go, threads)
        if self._keeps_course or terms.peak_limit_bytes is not None:
            window.peak, window.begin = self.peaks.begin(window.begin, partial(self._read, edge=False))
            window.first = window.begin
        self._judge.begin_window(heap_of(window.begin), terms.threshold_bytes)
        if self.processes is not None:
            self.processes.open(test)
        self.window = window
        window.seconds = time.perf_counter() - begin

    def _first_reading(self, module: str) -> Snapshot:
        starts_module = module not in self.ledger.modules
        self.ledger.heap_by_module = self.gauge.host_is_slow
        if self.ledger.heap_by_module:
            self.gauge.unavailable.setdefault("heap of each test", "reading it takes over 5 ms: judged by module")
        snapshot = self._read_settled(edge=starts_module)
        levels = {**held(snapshot), **self._judge.first_census()}
        if starts_module and self._explainer is not None:
            self._explainer.begin_module()
        if not self.ledger.modules and self._explainer is not None and any(a != HEAP and levels[a] for a in levels):
            self._explainer.mark()
        self.ledger.open(module, levels)
        return snapshot

    def begin_setup(self, key: int, name: str, scope: str) -> None:
        """Note that the setup of a fixture of a wider scope begins: what follows is the fixture's."""
        with self._timed():
            self._book()
            self._judge.book_falls(self._threshold_bytes)
            self.ledger.end_releases()  # a fixture that ends in a setup ends to come up anew, with another parameter
            if self.gauge.host_watched:
                self._judge.book_earlier_arrays(self._threshold_bytes)
            self.ledger.begin_setup(key, name, scope)
            if self.processes is not None:
                self.processes.begin_setup(key, name, scope)

    def end_setup(self, key: int) -> None:
        """Note that it is over, also where it failed."""
        with self._timed():
            if self.processes is not None:
                self.processes.end_setup(key)
            self._book_setup(key)

    def _book_setup(self, key: int) -> None:
        share = self.ledger.fixtures.get(key)
        if share is None:  # torn down again before its setup was over
            return
        self._book()
        if any(abs(size) > self._threshold_bytes for size in share.held.values()):
            collect_young()  # else garbage of the setup would hide what the test leaks
            self.ledger.book_given_back(held(self._read(edge=True)), [share.held])
            if abs(share.held.get(HEAP, 0)) > self._threshold_bytes:
                self._judge.book_census()
            self._judge.look_at_new(key)
        self.ledger.end_setup(key)

    def fixture_release(self, key: int, *, in_teardown: bool) -> None:
        """Note that a fixture of a wider scope comes to its end now.

        In the teardown of a test, the test's own memory has to be back by then.
        """
        with self._timed():
            before = self._book()
            window = self.window
            if window is not None and in_teardown and not (window.is_judged or window.waits):
                window.latest = before
                self._closing.finish_test(window, may_wait=True)
                if window.has_acted:
                    window.latest = self._book()
                window.given_back_bytes += given_back(before, window.latest)
            self._judge.book_falls(self._threshold_bytes)
            self._judge.is_exhausted = False  # what the fixture leaves behind has not been looked for yet
            self.ledger.begin_release(key)
            if self.processes is not None:
                self.processes.begin_release(key)

    def close_unchanged(self, level: Level | None) -> float | None:
        """Close the window, in the middle of a module, if it ends with what it began with: one reading is all it costs.

        Args:
            level: the cleanup that is due now, if any.

        Returns:
            The seconds that were spent on the window; None where it stays open, as it takes a `close`.
        """
        window = self.window
        if window is None or self._cleaning.extra:
            return None
        begin = time.perf_counter()
        if self.processes is not None and not self.processes.is_quiet():
            return None
        if self._watches_host and self._dispatched.is_awaited():
            return None
        snapshot = self._latest = self._read(edge=False, roughly=True)
        has_acted = self.ledger.test or self.ledger.ended or window.is_judged or window.cleanups
        # A comprehensive cleanup is due also where everything was freed again.
        if has_acted or not self._may_rest(window, snapshot, exactly=level == "comprehensive"):
            return None
        self._latest = None
        if window.peak is not None or self.course is not None:
            self._end_course(window, snapshot)
        if snapshot is not window.begin:
            self.ledger.drift_all(held(snapshot))
        self._rest(window, snapshot)
        self.ledger.close()
        return window.seconds + time.perf_counter() - begin

    def close(self, ending: Ending, level: Level | None = None, first: Sequence[Cleaner] = ()) -> TestRecord:
        """Close the window: clean if it is time to, judge, and say what came of it.

        Args:
            ending: what ends together with the test.
            level: the cleanup that is due now, if any.
            first: what the test itself has asked to run at its cleanup.
        """
        window = self.window
        if window is None:
            raise RuntimeError("no window is open")
        begin = time.perf_counter()
        edge = ending.module or ending.session or bool(self.ledger.ended)
        latest, self._latest = self._latest, None
        snapshot = latest if latest is not None and not self.ledger.heap_by_module else self._read_settled(edge=edge)
        window.latest, window.has_acted = snapshot, False
        self.ledger.book(held(snapshot))
        self._closing.note_freed()
        self.ledger.end_releases()
        window.leaks += peaks_over(snapshot, window)
        self._end_course(window, snapshot)
        if window.waits:
            self._closing.finish_test(window)
        self._closing.let_go(window)
        self._closing.end_processes(window, thorough=ending.module or ending.session)
        if level is not None:
            self._closing.clean(window, level, first, snapshot, ending)
        if not window.is_judged:
            self._closing.finish_test(window)
        if window.terms.judges:
            window.has_acted |= ending.module or ending.session or bool(self.ledger.ended)
            window.leaks += [
                self._closing.explained(found, window) for found in leaks_of_ends(self._judge, window, ending)
            ]
        end = self._read(edge=edge) if window.has_acted else window.latest
        window.given_back_bytes += given_back(snapshot, end)
        if self.course is not None:
            self.course = self.course._replace(end=end)
        record = self._put_away(window, begin)
        if not record.leaks and self._may_rest(window, end):
            self._rest(window, end)
        return record

    def _read(self, *, edge: bool, roughly: bool = False) -> Snapshot:
        snapshot = self.gauge.read(with_heap=edge or not self.ledger.heap_by_module, roughly=roughly)
        reads_host = self.gauge.reads_host
        if self._watches_host and not reads_host:  # an accelerator has turned up
            self.ledger.forget(HEAP.device)
        self._watches_host = reads_host
        return snapshot

    def _read_settled(self, *, edge: bool) -> Snapshot:
        if self.gauge.host_watched:
            self._dispatched.wait()
        return self._read(edge=edge)

    def _may_rest(self, window: Window, end: Snapshot, *, exactly: bool = False) -> bool:
        """Whether the next window may go on from the end of this one."""
        return (
            (end is window.begin or is_as_before(window.begin, end, exactly=exactly))
            and window.terms.peak_limit_bytes is None
            and (not self._watches_host or self.gauge.host_is_slow == self.ledger.heap_by_module)
        )

    def _end_course(self, window: Window, snapshot: Snapshot) -> None:
        self.course = None
        if window.peak is not None and window.first is not None:
            self.course = Course(window.first, snapshot, window.peak.highest(snapshot))
            self.peaks.end(window.peak)

    def _rest(self, window: Window, end: Snapshot) -> None:
        window.begin = end
        self.window, self._resting = None, window

    def _put_away(self, window: Window, begin: float) -> TestRecord:
        self.ledger.close()
        self.window = None
        window.seconds += time.perf_counter() - begin
        trouble, self._judge.trouble = self._judge.trouble, []
        trouble += [problem for result in window.cleanups for problem in result.problems]
        return TestRecord(
            test=window.test,
            leaks=tuple(window.leaks),
            cleanups=tuple(window.cleanups),
            problems=tuple(trouble),
            left=tuple(window.left),
            given_back_bytes=window.given_back_bytes,
            seconds=window.seconds,
        )

    def do_not_judge(self) -> None:
        """Only clean at the end of this window: what keeps its memory must not be touched."""
        if self.window is not None:
            self.window.terms = dataclasses.replace(self.window.terms, judges=False)

    def abandon(self, test: str = "") -> None:
        """Forget the window that is open, after trouble of our own: nobody is accused of what came in it.

        Args:
            test: the test that runs.
        """
        window = self.window
        self.window = self._resting = self._latest = self.course = None
        self.ledger.lose_track()
        if self.processes is not None:
            self.processes.lose_track(test)
        if window is not None and window.peak is not None:
            self.peaks.end(window.peak)

    # -- when a device fails ------------------------------------------------------------------------------------

    def lose(self, device: str, reason: str) -> None:
        """Take it that a device answers no more: nothing on it is judged or cleaned from now on.

        Args:
            device: as readings name it.
            reason: such as `is lost since test_a`.
        """
        self.gauge.lost[device] = reason
        self.ledger.forget(device)
        self._resting = None

    def regain(self, device: str) -> None:
        """Take it that a lost device answers again."""
        self.gauge.lost.pop(device, None)

    def devices(self) -> list[str]:
        """Name the devices in use."""
        return sorted({reading.device for reading in self.gauge.read(with_heap=False).readings} - {HEAP.device})

    def holdings(self) -> Holdings:
        """Tell what is held right now, and by whom."""
        with self._timed():
            return holdings(self.ledger, self._book(), has_window=self.window is not None)

    # -- by hand ------------------------------------------------------------------------------------------------

    def holds_memory(self, value: object) -> bool:
        """Tell whether watched memory is reachable from a value, within a short walk."""
        return self._judge.holds_memory(value)

    def snapshot(self) -> Snapshot:
        """Read everything that is watched."""
        return self.gauge.read()

    def clean(self, level: Level) -> CleanupResult:
        """Run a cleanup by hand, in the middle of a test."""
        with self._timed():
            begin = self._book()
            occasion = Occasion(level=level, lost=self.gauge.lost_reason)
            result, end = self._cleaning.run(occasion, begin) or (CleanupResult(level=level), begin)
            self._resting = None
            self.ledger.book(held(end))
            if self.window is not None:
                self.window.cleanups.append(result)
            else:
                self._judge.trouble += result.problems
            return result

    def run_step(self, cleaner: Cleaner) -> None:
        """Run a single step, before the window's judgement."""
        occasion = Occasion(level="quick", lost=self.gauge.lost_reason)
        result, _ = self._cleaning.run_steps([cleaner], occasion, self._read(edge=False))
        if self.window is not None:
            self.window.cleanups.append(result)

    @contextmanager
    def block(self, threshold_bytes: int, name: str) -> Iterator[list[Leak]]:
        """Judge a stretch of code by itself; the list that it hands out holds its leaks at the end."""
        leaks: list[Leak] = []
        self._book()
        owner = self.ledger.push()
        try:
            yield leaks
        finally:
            with self._timed():
                self._book()
                threads = self.window.threads if self.window else self._threads.known()
                found = self._judge.judge_block(owner, threshold_bytes, threads)
                leaks += [
                    self._closing.explained(leak("test", name, account, size, threshold_bytes), self.window)
                    for account, size in found.items()
                ]
                self.ledger.pop(owner, charged=bool(leaks))

    # -- steps --------------------------------------------------------------------------------------------------

    def _book(self, *, edge: bool = True) -> Snapshot:
        self._resting = None
        snapshot = self._read_settled(edge=edge)
        self.ledger.book(held(snapshot))
        return snapshot

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            if self.window is not None:
                self.window.seconds += time.perf_counter() - begin
