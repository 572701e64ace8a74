"""Says where two runs of one suite differ."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

OURS = "GpuCleanWarning"
ADDRESS = re.compile(r"0x[0-9a-f]+")
WORKER = re.compile(r"^\[gw\d+\].*$", re.MULTILINE)
"""pytest-xdist says in a failure's text which worker ran it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one run said."""

    reports: dict[str, tuple[str, ...]]
    """By test: the reports in their order, each with its phase, outcome, reason and text."""
    warnings: Counter[tuple[str, str, str]]
    """By test, category and text; without those of the plugin, which are what it is for."""
    order: tuple[str, ...]
    told: int
    """How many warnings of the plugin there were."""
    status: int | None
    """The exit status, or None where the run broke off."""

    @property
    def counts(self) -> Counter[str]:
        """How many tests there are of each outcome."""
        return Counter(_outcome(reports) for reports in self.reports.values())


def read(lines: Iterable[str]) -> Said:
    """Read what the recorder wrote."""
    reports: dict[str, list[str]] = {}
    warnings: Counter[tuple[str, str, str]] = Counter()
    told, status = 0, None
    for line in lines:
        entry = json.loads(line)
        if entry["kind"] == "report":
            parts = (entry["phase"], entry["outcome"], entry["xfail"], _steady(entry["text"]))
            reports.setdefault(entry["test"], []).append(json.dumps(parts))
        elif entry["kind"] == "end":
            status = entry["status"]
        elif entry["category"] == OURS:
            told += 1
        else:
            warnings[entry["test"], entry["category"], _steady(entry["text"])] += 1
    return Said(
        reports={test: tuple(said) for test, said in reports.items()},
        warnings=warnings,
        order=tuple(reports),
        told=told,
        status=status,
    )


def differences(bare: Said, other: Said, *, in_order: bool, apart_from: Collection[str] = ()) -> list[str]:
    """Say where a run differs from the one without the plugin, one line each.

    Args:
        bare: without the plugin.
        other: with it.
        in_order: whether the order counts. Workers of pytest-xdist get the tests that they get, and a warning that
            torch gives once a process falls to the first of them: there its text counts, and not whose it is.
        apart_from: tests that differ between two runs without the plugin.
    """
    found = [
        f"{test}: {bare.reports.get(test)} became {other.reports.get(test)}"
        for test in sorted(bare.reports.keys() | other.reports.keys())
        if test not in apart_from and bare.reports.get(test) != other.reports.get(test)
    ]
    one, two = (_warnings(said, in_order, apart_from) for said in (bare, other))
    found += [
        f"{key}: {one[key]} warnings became {two[key]}"
        for key in sorted(one.keys() | two.keys())
        if one[key] != two[key]
    ]
    if in_order and not found and bare.order != other.order:
        found.append("the tests ran in another order")
    if bare.status != other.status and not (apart_from and {bare.status, other.status} <= {0, 1}):
        found.append(f"exit status {bare.status} became {other.status}")
    return found


def unsteady(one: Said, two: Said, *, in_order: bool) -> set[str]:
    """Name the tests that differ between two runs of the same kind; see `differences` for whose warnings count."""
    tests = {test for test in one.reports.keys() | two.reports.keys() if one.reports.get(test) != two.reports.get(test)}
    if in_order:
        tests |= {key[0] for key in one.warnings.keys() | two.warnings.keys() if one.warnings[key] != two.warnings[key]}
    return tests


def _warnings(said: Said, by_test: bool, apart_from: Collection[str]) -> Counter[tuple[str, ...]]:
    counted = {key: count for key, count in said.warnings.items() if key[0] not in apart_from}
    return Counter(counted if by_test else {key[1:] for key in counted})


def _steady(text: str) -> str:
    return WORKER.sub("", ADDRESS.sub("0x", text))


def _outcome(reports: Iterable[str]) -> str:
    """Give a test's outcome as pytest's last line counts it; an error at teardown counts for itself there."""
    outcome = "passed"
    for phase, result, xfail, _ in map(json.loads, reports):
        if xfail is not None:
            return "xfailed" if result == "skipped" else "xpassed"
        if result != "passed":
            outcome = result if phase == "call" or result == "skipped" else "error"
    return outcome
