"""What ends together with a window, and what it has leaked: fixtures of a wider scope, the module, the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pytest_gpuclean.cards import CardWatch
from pytest_gpuclean.judging import Judge
from pytest_gpuclean.leaks.ledger import Drift
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.window import Ending, LeakKind, Window, leak


def leaks_of_ends(judge: Judge, window: Window, ending: Ending) -> Iterator[Leak]:
    """Judge everything that ends with a window but its test.

    Args:
        judge: whose ledger has booked it.
        window: the window that is being closed.
        ending: what ends with it.
    """
    terms = window.terms
    threshold = terms.threshold_bytes if terms.scope_threshold_bytes is None else terms.scope_threshold_bytes
    for share, found in judge.judge_ended_fixtures(threshold, window.let_go, window.threads):
        for account, size in found.items():
            yield leak("fixture", share.name, account, size, threshold, scope=share.scope)
    if ending.module:
        drift = judge.ledger.modules[window.module]
        leaks = list(_leaks_of_drift(judge, window, drift, threshold, "module", window.module))
        if leaks:
            drift.tests = 0
        yield from leaks
    if ending.session:
        yield from _leaks_of_drift(judge, window, judge.ledger.session, threshold, "session", "the whole run")


def leaks_of_processes(
    cards: CardWatch, window: Window, left: Iterable[LeftProcess], *, are_stopped: bool
) -> Iterator[Leak]:
    """Judge the GPU memory of the processes that were left at the end of a window's test.

    Args:
        cards: has read it before they were stopped.
        window: the window that is being closed.
        left: the processes, with what became of them.
        are_stopped: whether they are stopped at all; then one that is spared is not the test's to end.
    """
    if window.terms.judges:
        counted = [process for process in left if not (are_stopped and process.is_spared)]
        yield from cards.leaks(window.test, window.terms.threshold_bytes, counted)


def _leaks_of_drift(
    judge: Judge, window: Window, drift: Drift, threshold: int, kind: LeakKind, name: str
) -> Iterator[Leak]:
    found = judge.judge_drift(drift, threshold, window.let_go, window.threads)
    for account, size in found.items():
        yield leak(kind, name, account, size, threshold, tests=drift.tests)
