"""What a script's cleanup prints: each step, what came of it, and memory before and after."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from pytest_gpuclean.model.cleanup import CleanupResult, StepResult
from pytest_gpuclean.model.memory import Snapshot
from pytest_gpuclean.units import KiB, format_seconds, format_size

_LEAST_TOLD_BYTES = 64 * KiB
"""Less than that is the heap's own coming and going."""


class Teller:
    """Prints to stdout, where anything is to be printed. It never raises: a cleanup does not fail of its words.

    Args:
        verbose: whether anything is.
    """

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose

    def __call__(self, line: str) -> None:
        """Print a line at once."""
        if not self.verbose:
            return
        # Looked up now: a notebook puts another one there for each cell. It may be closed, or know ASCII alone.
        with contextlib.suppress(Exception):
            try:
                print(line, flush=True)
            except UnicodeEncodeError:
                print(line.encode("ascii", "backslashreplace").decode(), flush=True)

    def result(self, title: str, result: CleanupResult, notes: Iterable[str] = ()) -> None:
        """Print what a cleanup did."""
        for line in result_lines(title, result, notes):
            self(line)


def result_lines(title: str, result: CleanupResult, notes: Iterable[str] = ()) -> Iterator[str]:
    """Say what a cleanup did.

    Args:
        title: what it was.
        result: its steps.
        notes: what else there is to say, a line each.
    """
    yield f"gpuclean: {title}"
    yield f"  before: {in_use_text(result.before)}"
    idle = []
    for step in result.steps:
        if step.status == "skipped":
            idle.append(step.name)
        else:
            yield f"  {step_line(step)}"
    if idle:
        yield f"  nothing to do: {', '.join(idle)}"
    for note in notes:
        yield f"  {note}"
    size = result.given_back_bytes
    given_back = f", {format_size(size)} given back" if size >= _LEAST_TOLD_BYTES else ""
    yield f"  after: {in_use_text(result.after)}{given_back}, in {format_seconds(result.seconds)}"


def step_line(step: StepResult) -> str:
    """Say what one step did: `garbage: ok: 12 objects collected, cuda:0 -4.0 MiB, 31 ms`."""
    freed = [f"{device} {format_size(-size)}" for device, size in step.given_back.items() if size >= _LEAST_TOLD_BYTES]
    word = "failed" if step.status == "failed" else "ok"
    return f"{step.name}: {word}: {', '.join(filter(None, [step.detail, *freed, format_seconds(step.seconds)]))}"


def in_use_text(in_use: Mapping[str, int]) -> str:
    """Say what is in use on each device."""
    return ", ".join(f"{device} {format_size(size)}" for device, size in in_use.items()) or "no device in use"


def snapshot_lines(snapshot: Snapshot, resident_bytes: int | None) -> Iterator[str]:
    """Say what is in use.

    Args:
        snapshot: the figures.
        resident_bytes: of this process, in host memory; None where that is not known.
    """
    yield "gpuclean: memory in use"
    yield f"  this process: {'not known' if resident_bytes is None else format_size(resident_bytes)} resident"
    for line in str(snapshot).splitlines():
        yield f"  {line}"


def resident_bytes() -> int | None:
    """Read how much host memory this process has in use, shared libraries included; None where that is not known."""
    try:
        import psutil

        return int(psutil.Process().memory_info().rss)
    except Exception:  # psutil is missing or broken: the line then says so
        return None
