"""Runs every step of a cleanup: a step that fails is recorded, and the others go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from pytest_gpuclean.cleanup.interface import Cleaner, Occasion, RefusedError, Skip
from pytest_gpuclean.model.cleanup import CleanupResult, StepResult

InUse = dict[str, int]
"""Bytes in use by device, live objects and reserved caches together."""


def run_cleanup(
    cleaners: Iterable[Cleaner], occasion: Occasion, before: InUse, read: Callable[[], InUse]
) -> CleanupResult:
    """Run the cleaners one after the other and tell what each gave back.

    Args:
        cleaners: in the order in which they run.
        occasion: why the cleanup runs.
        before: what is in use when it begins.
        read: asked after each step that may have given something back.
    """
    begin = time.perf_counter()
    in_use = before
    steps = []
    for cleaner in cleaners:
        step_begin = time.perf_counter()
        name, status, detail = _run_step(cleaner, occasion)
        if status == "skipped":
            steps.append(StepResult(name=name, status="skipped", detail=detail))
            continue
        seconds = time.perf_counter() - step_begin
        now = read() if getattr(cleaner, "is_measured", True) else in_use
        steps.append(
            StepResult(
                name=name,
                status="done" if status == "done" else "failed",
                detail=detail,
                seconds=seconds,
                given_back=_decrease(in_use, now),
            )
        )
        in_use = now
    return CleanupResult(
        level=occasion.level,
        steps=tuple(steps),
        before=before,
        after=in_use,
        seconds=time.perf_counter() - begin,
    )


def _run_step(cleaner: Cleaner, occasion: Occasion) -> tuple[str, str, str]:
    name = type(cleaner).__name__
    try:
        name = str(cleaner.name)
        if occasion.lost and getattr(cleaner, "calls_driver", False):
            return name, "skipped", occasion.lost
        outcome = cleaner.clean(occasion)
    except RefusedError as error:
        return name, "failed", str(error)
    except (Exception, SystemExit) as error:
        return name, "failed", f"{type(error).__name__}: {error}"
    if isinstance(outcome, Skip):
        return name, "skipped", outcome.reason
    return name, "done", str(outcome)


def _decrease(before: InUse, after: InUse) -> dict[str, int]:
    if before == after:
        return {}
    changes = {device: size - after.get(device, 0) for device, size in before.items()}
    return {device: change for device, change in changes.items() if change > 0}
