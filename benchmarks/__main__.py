"""`python -m benchmarks [--quick] [--long] [NAME ...]`: measure and print; without a NAME, write it all down too."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterable

from benchmarks import between, growth, holders, needs, nvml, page, per_test, plot, processes, startup
from benchmarks.budgets import look_at
from benchmarks.measure import Extent, Row
from benchmarks.pace import Pace

BENCHMARKS: dict[str, Callable[[Extent], Iterable[Row]]] = {
    "startup": startup.run,
    "per_test": per_test.run,
    "growth": growth.run,
    "processes": processes.run,
    "between": between.run,
    "nvml": nvml.run,
    "needs": needs.run,
    "holders": holders.run,
}
NEEDED = ("torch", "numpy", "psutil", "pyperf", "matplotlib")


def main() -> int:
    """Run the benchmarks; the exit status says whether every budget is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer tests and rounds")
    parser.add_argument("--long", action="store_true", help="the long ends of the curves too: runs of 100,000 tests")
    options = parser.parse_args()
    unknown = sorted({*options.names} - BENCHMARKS.keys())
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such benchmark; there are {', '.join(BENCHMARKS)}")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing and not options.names:
        parser.error(f"{', '.join(missing)} is not installed; `tox run -e bench` has all that it takes")
    extent = Extent(quick=options.quick, long=options.long)
    begin, load_before, pace = time.monotonic(), os.getloadavg()[0], Pace()
    rows: list[Row] = []
    for name in options.names or BENCHMARKS:
        of_it = time.monotonic()
        pace.note()
        for row in BENCHMARKS[name](extent):
            print(page.line(row), flush=True)
            rows.append(row)
        print(f"({name}: {time.monotonic() - of_it:.0f} s)", flush=True)
    if not options.names:
        load = (load_before, os.getloadavg()[0])
        about = page.machine(extent, time.monotonic() - begin, load, pace.quickest_seconds)
        page.write(rows, about)
        plot.draw(rows, page.PLOT)
    return _end(rows)


def _end(rows: list[Row]) -> int:
    """Say what became of the promises, and of every other budget."""
    kept = [each for each in look_at(rows) if each.worst is not None]
    print()
    for each in kept:
        worst = each.worst
        print(f"{each.promise.what} ({each.promise.budget}): {each.word}; worst {page.line(worst) if worst else ''}")
    missed = [row for row in rows if not row.is_met]
    print(f"{len(rows)} figures, {len(missed)} over their budget")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
