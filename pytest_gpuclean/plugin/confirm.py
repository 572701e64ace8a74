"""Running a suspect again, inside its own teardown: so it takes the test protocol from nobody."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from pytest_gpuclean.model.records import TestRecord
from pytest_gpuclean.plugin import internals

_OUTCOMES = (Exception, pytest.fail.Exception, pytest.skip.Exception)


def confirm(record: TestRecord, times: int, run_again: Callable[[], TestRecord | None]) -> TestRecord:
    """Run a test again as long as it grows; where it stops growing, its leak is told as kept and does not fail.

    Args:
        record: of the run that grew.
        times: how often to run it again.
        run_again: runs it once more, and gives the record of that.
    """
    grown = 1
    for _ in range(times):
        again = run_again()
        problems = [problem for problem in again.problems if problem not in record.problems] if again else []
        record = dataclasses.replace(record, problems=(*record.problems, *problems))
        if again is None or not any(leak.kind == "test" for leak in again.leaks):
            break
        grown += 1
        record = _with_sites(record, again)
    if grown > times:
        return record
    kept = "kept once: it did not grow when it ran again"
    if grown > 1:
        kept = f"kept in the first {grown} of {times + 1} runs, and then no more"
    leaks = [dataclasses.replace(leak, kept_once=kept) if leak.kind == "test" else leak for leak in record.leaks]
    return dataclasses.replace(record, leaks=tuple(leaks))


def _with_sites(record: TestRecord, again: TestRecord) -> TestRecord:
    """Take over from a later run who holds what, where that run has recorded where it was made."""
    known = {
        (leak.kind, leak.device, leak.source): leak.explanation
        for leak in again.leaks
        if leak.explanation is not None and any(content.made_at for content in leak.explanation.contents)
    }
    leaks = [
        dataclasses.replace(leak, explanation=known.get((leak.kind, leak.device, leak.source), leak.explanation))
        for leak in record.leaks
    ]
    return dataclasses.replace(record, leaks=tuple(leaks))


def run_quietly(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Set a test up, call it and tear it down once more, without a report; its own failures are not told again.

    Returns:
        Whether it has passed.
    """
    has_passed = True
    internals.fresh_request(item)
    hook = item.ihook
    with internals.unheard(item):
        try:
            hook.pytest_runtest_setup(item=item)
            hook.pytest_runtest_call(item=item)
        except pytest.exit.Exception:
            raise
        except _OUTCOMES:
            has_passed = False
        try:
            hook.pytest_runtest_teardown(item=item, nextitem=nextitem)
        except pytest.exit.Exception:
            raise
        except _OUTCOMES:
            has_passed = False
    return has_passed
