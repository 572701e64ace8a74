"""One report of many: of the shards of a suite, of a CI's matrix. What is there twice or missing is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from pytest_gpuclean.reports.data import Report, Run

_MOST_SHOWN = 20


class Merged(NamedTuple):
    """What came of a merge."""

    report: Report
    is_whole: bool
    """Whether no shard is missing, as far as that can be told."""


def merge(reports: Sequence[tuple[str, Report]], expected: int | None = None) -> Merged:
    """Put the runs of several reports into one, the oldest first.

    Args:
        reports: each with the name of its file.
        expected: how many runs there should be; None where that is not known.
    """
    runs: dict[str, Run] = {}
    notes: list[str] = []
    for name, report in reports:
        for run in report.runs:
            if run.id in runs:
                notes.append(f"{name}: this run is there already, and counts once")
            runs.setdefault(run.id, run)
    ordered = sorted(runs.values(), key=lambda run: (run.started_at, run.id))
    missing = list(_missing(ordered, expected))
    notes += missing
    notes += _shards_twice(ordered)
    notes += _tests_twice(ordered)
    return Merged(Report(runs=tuple(ordered), notes=tuple(notes)), is_whole=not missing)


def _splits(runs: Sequence[Run]) -> dict[int, dict[int, list[Run]]]:
    """Sort runs that are shards: by how many there are, and which one."""
    found: dict[int, dict[int, list[Run]]] = {}
    for run in runs:
        if run.shard is not None:
            found.setdefault(run.shard.total, {}).setdefault(run.shard.index, []).append(run)
    return found


def _missing(runs: Sequence[Run], expected: int | None) -> Iterator[str]:
    splits = _splits(runs)
    for total, shards in sorted(splits.items()):
        count = total - len(shards)
        absent = (index for index in range(1, total + 1) if index not in shards)
        if count:
            shown = ", ".join(map(str, islice(absent, _MOST_SHOWN)))
            more = f" and {count - _MOST_SHOWN} more" if count > _MOST_SHOWN else ""
            yield f"{count} of {total} shards missing: {shown}{more}"
    if expected is not None and len(runs) < expected and expected not in splits:  # else it has been told by number
        yield f"{expected - len(runs)} of {expected} runs missing"


def _shards_twice(runs: Sequence[Run]) -> Iterator[str]:
    splits = _splits(runs)
    for total, shards in sorted(splits.items()):
        for index, same in sorted(shards.items()):
            if len(same) > 1:
                yield f"shard {index} of {total} ran {len(same)} times; each of them is told"
    if len(splits) > 1:
        yield f"the shards are of different splits: into {', '.join(map(str, sorted(splits)))}"


def _tests_twice(runs: Sequence[Run]) -> Iterator[str]:
    """Tell of tests that ran in several runs, less those of a shard that ran again."""
    first: dict[str, tuple[int, int] | str] = {}
    twice: dict[str, None] = {}
    for run in runs:
        part = run.id if run.shard is None else (run.shard.total, run.shard.index)
        for entry in run.tests:
            if first.setdefault(entry.test, part) != part:
                twice[entry.test] = None
    if twice:
        yield f"{len(twice):,} test{'s' * (len(twice) > 1)} ran in more than one run, such as {next(iter(twice))}"
