"""What is promised: each figure of a benchmark that a budget is for names it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.measure import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One budget."""

    what: str
    budget: str
    measured_by: str
    """The benchmark, and the options that it takes to measure it."""


PROMISES = {
    "start-up": Promise(what="installed, not asked for: start-up", budget="2 ms", measured_by="startup"),
    "not asked for": Promise(what="installed, not asked for: a test", budget="nothing: 5 µs", measured_by="startup"),
    "idle": Promise(
        what="a test that uses no memory, the plugin on",
        budget="50 µs for each initialised device, and 1/500 of the usual fixture",
        measured_by="per_test",
    ),
    "counted": Promise(
        what="a test that allocates and frees",
        budget="100 µs; comprehensive, which cleans after it: 1/100 of the usual fixture",
        measured_by="per_test",
    ),
    "garbage": Promise(
        what="a test that leaves garbage cycles", budget="1/5 of the usual fixture", measured_by="per_test"
    ),
    "holders": Promise(what="who holds it, on a heap of 1,000,000 objects", budget="1 s", measured_by="holders"),
    "tensorboard": Promise(
        what="a leaked TensorBoard, from the first signal to its free port", budget="150 ms", measured_by="processes"
    ),
    "ros": Promise(what="a ROS-like tree of processes, to its end", budget="0.3 s", measured_by="processes"),
    "no children": Promise(what="watching processes, a test without children", budget="10 µs", measured_by="processes"),
    "children": Promise(what="watching processes, a test with some", budget="0.1 ms", measured_by="processes"),
    "between runs": Promise(
        what="the end of a `watch()` and between runs, the memory back at once",
        budget="50 ms; comprehensive, one gc.collect() more",
        measured_by="between",
    ),
    "records": Promise(
        what="100,000 tests: memory for the plugin's records", budget="50 MiB", measured_by="growth --long"
    ),
    "constant": Promise(
        what="100,000 tests: a test, as a multiple of one of 1,000", budget="1.5", measured_by="growth --long"
    ),
}


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a promise."""

    promise: Promise
    rows: int
    """How many figures it was measured by."""
    missed: tuple[Row, ...]
    worst: Row | None
    """The one nearest to its budget, or furthest beyond it."""

    @property
    def word(self) -> str:
        """What is told of it."""
        if self.worst is None:
            return "not measured this time"
        return f"missed by {len(self.missed)} of {self.rows}" if self.missed else "met"


def look_at(rows: Iterable[Row]) -> Iterator[Kept]:
    """Say of each promise what the figures make of it.

    Args:
        rows: of any benchmarks.
    """
    rows = list(rows)
    for name, promise in PROMISES.items():
        of_it = [row for row in rows if row.promise == name and row.budget is not None]
        worst = max(of_it, key=lambda row: row.measured / row.budget if row.budget else 0.0, default=None)
        yield Kept(promise, len(of_it), tuple(row for row in of_it if not row.is_met), worst)
