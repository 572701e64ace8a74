"""The ladder that a suspect is looked at by: each rung is climbed only where the one before left a doubt."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_gpuclean.cleanup.garbage import collect_all, collect_all_once, collect_young
from pytest_gpuclean.cleanup.interface import Occasion
from pytest_gpuclean.cleanup.runner import run_cleanup
from pytest_gpuclean.cleanup.settle import KnownThreads, NewThreads, wait_until
from pytest_gpuclean.leaks.ledger import FixtureShare
from pytest_gpuclean.leaks.verdict import judged_growth
from pytest_gpuclean.memory.gauge import held, rounds
from pytest_gpuclean.memory.reach import Walk
from pytest_gpuclean.model.memory import ARRAYS, HEAP, Account, Bytes

if TYPE_CHECKING:
    from pytest_gpuclean.judging import Judge


class Kept(enum.IntEnum):
    """What the test runner keeps of a test."""

    MEMORY = 0
    """What is known to hold memory."""
    ALL = 1
    OF_ENDED = 2
    """The values of wider fixtures that have come to their end; only once the test is reported."""
    MEMORY_OF_ENDED = 3
    """Those of them that are known to hold memory."""


LetGo = Callable[[Kept], Iterable[int] | None]
"""Lets go of it; of the values of ended fixtures one by one, and gives the fixture's key after each."""

_MAKE_GARBAGE = ("torch.compile", "tensorflow", "jax")
"""Caches whose clearing leaves cycles behind."""
_RECOUNT_BYTES = 64 * 1024
"""How far the heap has to fall before the arrays in it are counted again."""


class Climb:
    """One way up the ladder."""

    def __init__(self, tools: Judge, pending: Sequence[Bytes], threads: KnownThreads) -> None:
        self._tools = tools
        self._pending = pending
        self._threads = threads
        self.credits: Bytes = {}
        """By how much the values of live fixtures have grown."""
        self.unlooked = dict(tools.ledger.unlooked)
        """What earlier windows kept since the values of live fixtures were last looked at."""
        self.has_looked = False
        self.uncounted_bytes = tools.uncounted_bytes
        """How much of the arrays may have come since the last count and before this window; None for any."""
        self._heap_before = {id(share): share[HEAP] for share in pending if HEAP in share}
        self.counted = False
        """Whether the arrays in host memory have been counted, so that the heap raises no doubt any more."""
        self._has_garbage = True
        """Whether a full collection may still free something: what a finalizer let go of, what was in a cache."""

    def run(self, doubt: Callable[[], Collection[Account]], let_go: LetGo | None = None) -> None:
        """Climb as long as there is a doubt."""
        rungs: list[Callable[[], Any]] = [
            *([partial(self._free, partial(let_go, Kept.ALL))] if let_go else []),
            partial(self._free, collect_young),
            self.look,
            *([] if self._tools.is_exhausted else self._dear_rungs(doubt)),
        ]
        for rung in rungs:
            if not doubt():
                return
            rung()

    def let_go_of_all(self, doubt: Callable[[], Collection[Account]], let_go: LetGo) -> None:
        """Climb the rungs that had to wait until the test was reported.

        First the values of fixtures that have ended: what they free was theirs. Of the rest nobody can tell.
        """
        ledger = self._tools.ledger
        if ledger.ended and doubt():
            for key in let_go(Kept.OF_ENDED) or ():
                levels = held(self._tools.gauge.read())
                ledger.book_given_back(levels, [*ledger.pending(key), *self._pending])
        if ledger.ended and doubt():  # values with a cycle in them, before the test's own are among the garbage
            self._free(collect_all, [*ledger.pending(), *self._pending])
        for action in (partial(let_go, Kept.ALL), collect_all):
            if doubt():
                self._free(action, [*self._pending, *ledger.pending()])

    def _dear_rungs(self, doubt: Callable[[], Collection[Account]]) -> list[Callable[[], Any]]:
        def exhaust() -> None:
            self._tools.is_exhausted = True  # the same again, in the same window, would free nothing more

        return [
            partial(self._free, self._collect),
            partial(self._free, self._clear_caches),
            partial(self._wait, doubt),
            self.look,
            exhaust,
        ]

    def heap_of(self, share: Bytes) -> int:
        """By how much the heap had grown before the first rung: what is freed since may be far older than the share.

        Args:
            share: of those that are looked at.
        """
        return max(self._heap_before.get(id(share), 0), share.get(HEAP, 0))

    def take_credits(self) -> list[tuple[Account, int]]:
        """Hand the credits out, once."""
        taken, self.credits = list(self.credits.items()), {}
        return taken

    def look(self, *, count_anew: bool = True) -> None:
        """See what live fixtures reach now, and count the arrays in host memory where the heap grew."""
        tools = self._tools
        self.has_looked = True
        snapshot = tools.gauge.read()
        heap = held(snapshot).get(HEAP)
        if heap is not None and count_anew and not (self.counted and self._is_as_counted(heap)):
            tools.ledger.book_given_back(tools.census(), self._pending)
            self.counted = True
        walk = Walk(tools.opaque_packages, rounds(snapshot))
        self._add(tools.reach(walk, with_arrays=self.counted))
        self._add({ARRAYS: walk.measure(tools.imports.new_values()).get(ARRAYS, 0)} if self.counted else {})
        tools.imports.mark()

    def _add(self, grown: Bytes) -> None:
        for account, size in grown.items():
            if size:
                self.credits[account] = self.credits.get(account, 0) + size

    def _free(self, action: Callable[[], Any], owners: Sequence[Bytes] = ()) -> None:
        action()
        tools = self._tools
        book = partial(tools.ledger.book_given_back, pending=owners or self._pending)
        levels = held(tools.gauge.read())
        book(levels)
        if self.counted and not self._is_as_counted(levels.get(HEAP, 0)):
            book(tools.census())

    def _is_as_counted(self, heap_bytes: int) -> bool:
        return heap_bytes > self._tools.heap_at_count - _RECOUNT_BYTES

    def _collect(self) -> None:
        # One pass: it is dear on a large heap, and what only the next would free it may free after the caches.
        self._has_garbage = collect_all_once() > 0

    def _clear_caches(self) -> None:
        occasion = Occasion(level="comprehensive", suspected=True, boundary=False, lost=self._tools.gauge.lost_reason)
        result = run_cleanup(self._tools.caches, occasion, {}, dict)
        self._tools.trouble += result.problems
        has_cleared = any(step.status == "done" for step in result.steps if step.name in _MAKE_GARBAGE)
        if has_cleared or self._has_garbage:
            collect_all()

    def _wait(self, doubt: Callable[[], Collection[Account]]) -> None:
        tools = self._tools
        threads = NewThreads(self._threads)
        patience = tools.thread_patience if threads.names else tools.patience

        def is_back() -> bool:
            self._free(collect_young)
            return not doubt()

        def may_go_on() -> bool:
            return not threads.names or threads.are_alive()

        names = ", ".join(threads.names) or "frees that come late"
        limit = min(tools.settle_seconds, patience.seconds)
        patience.learn(wait_until(is_back, limit, may_go_on, partial(tools.on_wait, names)))


def doubtful(share: Bytes, climb: Climb, threshold: int, fallen: Bytes | None = None) -> list[Account]:
    """List the accounts of a share that are above the threshold and not explained yet.

    Of the heap and the arrays in it, only one counts: the heap until the arrays have been counted.
    """
    passed_over = HEAP if climb.counted else ARRAYS
    forgiven = fallen or {}

    def unexplained(account: Account) -> int:
        explained = climb.credits.get(account, 0) + forgiven.get(account, 0)
        return judged_growth(share, account, climb.uncounted_bytes, climb.heap_of(share)) - explained

    return [account for account in share if account != passed_over and unexplained(account) > threshold]


def not_returned(share: FixtureShare, climb: Climb, threshold: int) -> list[Account]:
    """List the accounts of an ended fixture that are above the threshold and not explained yet."""
    return doubtful(share.held, climb, threshold, share.fallen)
