"""How a window is closed: what is kept is let go, what was left is stopped, then it is cleaned and judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_gpuclean.cards import CardWatch
from pytest_gpuclean.cleaning import Cleaning
from pytest_gpuclean.cleanup.garbage import collect_all, collect_young
from pytest_gpuclean.cleanup.interface import Cleaner, Occasion
from pytest_gpuclean.ends import leaks_of_processes
from pytest_gpuclean.explaining import Explainer
from pytest_gpuclean.judging import Judge
from pytest_gpuclean.ladder import Kept
from pytest_gpuclean.memory.gauge import held, never_used
from pytest_gpuclean.memory.interface import first_line
from pytest_gpuclean.model.cleanup import Level
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.memory import HEAP, Snapshot
from pytest_gpuclean.processes.watch import ProcessWatch
from pytest_gpuclean.window import HOST_KEPT_BYTES, Ending, Window, has_allocated, leak

_HOST_MOVED_BYTES = 256 * 1024
"""The runner's own reports and logs move the heap by some KiB in every test."""


class Closing:
    """Takes a window to its verdict, step by step.

    Args:
        judge: with the ledger that the window is booked in.
        cleaning: runs the cleanups.
        read: takes a reading.
        processes: looks after the processes that tests start; None where nobody does.
        cards: looks at the GPU memory of those that were left; None where nobody does.
        explainer: says who holds what leaked; None where nobody asks.
    """

    def __init__(
        self,
        judge: Judge,
        cleaning: Cleaning,
        read: Callable[[], Snapshot],
        *,
        processes: ProcessWatch | None,
        cards: CardWatch | None,
        explainer: Explainer | None,
    ) -> None:
        self._judge = judge
        self._ledger = judge.ledger
        self._gauge = judge.gauge
        self._cleaning = cleaning
        self._read = read
        self._processes = processes
        self._cards = cards
        self._explainer = explainer

    def note_freed(self) -> None:
        """Tell who looks holders up what the test, and the fixtures that ended with it, have freed.

        Trouble of that takes nothing from its verdict.
        """
        if self._explainer is not None:
            try:
                for share in (self._ledger.test, *(fixture.held for fixture in self._ledger.ended)):
                    self._explainer.note_freed(share)
            except Exception as error:
                self._judge.trouble.append(f"what was freed could not be looked up: {first_line(error)}")

    def let_go(self, window: Window) -> None:
        """Let go of what the runner keeps, where the test has more than it began with or a fixture has ended."""
        has_grown = not window.is_judged and self._has_grown(HOST_KEPT_BYTES)
        if not has_grown and not self._ledger.ended:  # the runner keeps the values of wider fixtures too
            return
        window.let_go(Kept.MEMORY)
        self._book_given_back(window, self._read())
        if self._ledger.ended:
            for key in window.let_go(Kept.MEMORY_OF_ENDED) or ():
                self._ledger.book_given_back(held(self._read()), self._ledger.pending(key))
        if has_grown and self._has_grown(_HOST_MOVED_BYTES):
            collect_young()  # else small garbage adds up to what looks like a drift
            self._book_given_back(window, self._read())

    def end_processes(self, window: Window, *, thorough: bool) -> None:
        """Stop what still runs, before the memory that it shares with this process is judged.

        Args:
            window: that is being closed.
            thorough: whether to look at all of the user's processes.
        """
        processes = self._processes
        if processes is None:
            return

        def release() -> None:
            window.has_acted = True
            window.let_go(Kept.ALL)
            collect_all()

        left = processes.close(release, self._judge.held_by, thorough=thorough)
        self._judge.trouble += processes.take_problems()
        window.left += left
        if window.has_acted:
            self._book_given_back(window, self._read())
        if left and self._cards is not None:
            if self._gauge.devices_watched:
                window.leaks += leaks_of_processes(self._cards, window, left, are_stopped=processes.stops)
            self._judge.trouble += self._cards.settle([process.pid for process in left if process.ended_by])

    def _book_given_back(self, window: Window, snapshot: Snapshot) -> None:
        window.latest, window.has_acted = snapshot, False
        pending = [] if window.is_judged else [self._ledger.test]
        pending += [share.held for share in self._ledger.ended]
        self._ledger.book_given_back(held(snapshot), pending)

    def _has_grown(self, host_bytes: int) -> bool:
        return any(size > (host_bytes if a == HEAP else 0) for a, size in self._ledger.test.items())

    def clean(self, window: Window, level: Level, first: Sequence[Cleaner], snapshot: Snapshot, ending: Ending) -> None:
        """Run the cleanup that is due.

        Args:
            window: that is being closed.
            level: how far it goes.
            first: what the test itself has asked to run.
            snapshot: the reading at the end of the test.
            ending: what ends with it.
        """
        occasion = Occasion(
            level=level,
            moved=self._has_grown(_HOST_MOVED_BYTES),
            # What can be read no more may have been used too: a device that is lost is found by the step that asks it.
            allocated=has_allocated(window.begin, snapshot)
            or len(snapshot.unavailable) > len(window.begin.unavailable),
            boundary=ending.module or ending.session,
            unused=never_used(snapshot),
            lost=self._gauge.lost_reason,
        )
        done = self._cleaning.run(occasion, window.latest, first)
        if done is not None:
            result, end = done
            self._book_given_back(window, end)
            window.cleanups.append(result)

    def finish_test(self, window: Window, *, may_wait: bool = False) -> None:
        """Judge the test of a window, unless its verdict has to wait until the test is reported.

        Args:
            window: the window.
            may_wait: whether it may.
        """
        if window.terms.judges:
            if not window.waits:
                self.let_go(window)
            window.waits = not self._judge_window(window, may_wait=may_wait)
        window.is_judged = not window.waits

    def _judge_window(self, window: Window, *, may_wait: bool) -> bool:
        window.has_acted |= any(size > window.terms.threshold_bytes for size in self._ledger.test.values())
        found = self._judge.judge_test(window.terms.threshold_bytes, window.let_go, window.threads, may_wait=may_wait)
        if found is None:
            return False
        window.leaks += [
            self.explained(leak("test", window.test, account, size, window.terms.threshold_bytes), window)
            for account, size in found.items()
        ]
        return True

    def explained(self, found: Leak, window: Window | None) -> Leak:
        """Say who holds a leak, where that is asked for; trouble of the search takes nothing from the verdict.

        Args:
            found: the leak.
            window: the window that is open.
        """
        if self._explainer is None:
            return found
        older = self._judge.older_storages if found.kind == "test" else ()
        try:
            if found.kind == "test" and window is not None and not window.terms.explains:
                self._explainer.take_in(found, older)
                return found
            return self._explainer.explained(found, older)
        except Exception as error:
            self._judge.trouble.append(f"who holds it could not be looked up: {first_line(error)}")
            return found
