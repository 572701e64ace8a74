"""A pytest plugin that notes, tenth by tenth, what a test costs and what the process has: `-p benchmarks.soak.meter`.

`SOAK_TESTS` says how many tests there are, `SOAK_NOTES` where to write.
"""

from __future__ import annotations

import collections
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from benchmarks.pace import loop_seconds
from benchmarks.soak import system
from benchmarks.soak.kinds import kind_of


class Meter:
    """Notes of one run."""

    def __init__(self, tests: int) -> None:
        self.tenths: list[dict[str, float]] = []
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._a_tenth = max(1, tests // 10)
        self._every = max(1, tests // 1000)
        self._seen = 0
        self._seconds: list[float] = []
        self._references: list[float] = []
        self._calls: list[int] = []
        self._full_collections = gc.get_stats()[2]["collections"]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Time a test that does nothing, and now and then a loop that always does the same."""
        is_ordinary = kind_of(item.callspec.params["number"]) == "nothing"  # type: ignore[attr-defined]
        if is_ordinary and self._seen % self._every == self._every // 2:
            counter = Counter()
            sys.setprofile(counter)
            try:
                result = yield
            finally:
                sys.setprofile(None)
            self._calls.append(counter.calls)
        else:
            begin = time.process_time()
            result = yield
            if is_ordinary:
                self._seconds.append(time.process_time() - begin)
        self._seen += 1
        if self._seen % self._every == 0:
            self._references.append(loop_seconds())
        if self._seen % self._a_tenth == 0:
            self._note()
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the outcomes."""
        if report.when == "call":
            self.outcomes[report.outcome] += 1
        elif report.failed:
            self.outcomes["leaks" if "gpuclean: leaked" in str(report.longrepr) else "errors"] += 1

    def pytest_sessionfinish(self) -> None:
        """Write it down."""
        Path(os.environ["SOAK_NOTES"]).write_text(json.dumps({"tenths": self.tenths, "outcomes": self.outcomes}))

    def _note(self) -> None:
        full_collections = gc.get_stats()[2]["collections"] - self._full_collections
        gc.collect()
        system.give_back_free()
        self.tenths.append(
            {
                "tests": self._a_tenth,
                "test_us": 1e6 * statistics.median(self._seconds),
                "reference_us": 1e6 * statistics.median(self._references),
                "calls": statistics.median(self._calls),
                "full_collections": full_collections,
                "rss_bytes": system.rss_bytes(),
                "objects": len(gc.get_objects()),
                "descriptors": system.descriptors(),
                "threads": system.threads(),
                "children": len(system.children()),
            }
        )
        self._seconds, self._references, self._calls = [], [], []
        self._full_collections = gc.get_stats()[2]["collections"]


class Counter:
    """Counts the calls of functions, those in C included: work that no load of the machine changes."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frame: object, event: str, argument: object) -> None:
        """Take one event in, as `sys.setprofile` hands it over."""
        self.calls += event in ("call", "c_call")


def pytest_configure(config: pytest.Config) -> None:
    """Take notes of this run."""
    config.pluginmanager.register(Meter(int(os.environ["SOAK_TESTS"])), "soak-meter")
