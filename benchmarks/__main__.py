"""`python -m benchmarks [--quick] [NAME ...]`: measure and print; without a NAME, write the results down too."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version

from benchmarks import growth, holders, needs, nvml, per_test, processes, startup
from benchmarks.measure import ROOT, Row

BENCHMARKS: dict[str, Callable[..., Iterable[Row]]] = {
    "startup": startup.run,
    "per_test": per_test.run,
    "growth": growth.run,
    "processes": processes.run,
    "nvml": nvml.run,
    "needs": needs.run,
    "holders": holders.run,
}
RESULTS = ROOT / "benchmarks" / "results" / "results.json"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- results: written by `python -m benchmarks` -->", "<!-- end of results -->"


def main() -> int:
    """Run the benchmarks; the exit status says whether every budget is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer tests and rounds")
    options = parser.parse_args()
    unknown = sorted({*options.names} - BENCHMARKS.keys())
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such benchmark; there are {', '.join(BENCHMARKS)}")
    rows: list[Row] = []
    for name in options.names or BENCHMARKS:
        for row in BENCHMARKS[name](quick=options.quick):
            print(_line(row), flush=True)
            rows.append(row)
    if not options.names:
        _write(rows, quick=options.quick)
    missed = [row for row in rows if not row.is_met]
    print(f"{len(rows)} figures, {len(missed)} over their budget")
    return 1 if missed else 0


def _write(rows: list[Row], *, quick: bool) -> None:
    machine = {
        "python": platform.python_version(),
        "pytest": version("pytest"),
        "torch": version("torch"),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "rounds": "few (--quick)" if quick else "all",
    }
    RESULTS.parent.mkdir(exist_ok=True)
    results = {"machine": machine, "rows": [{**dataclasses.asdict(row), "is_met": row.is_met} for row in rows]}
    RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{_page(machine, rows)}\n{END}{tail}", encoding="utf-8")


def _page(machine: dict[str, str], rows: list[Row]) -> str:
    about = "Measured with Python {python}, pytest {pytest} and torch {torch} on {system}; rounds: {rounds}."
    lines = [about.format(**machine)]
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            lines += ["", f"### {group[0].upper()}{group[1:]}", "", "| | cost | budget | to the usual fixture |"]
            lines.append("| --- | --- | --- | --- |")
        budget = "" if row.budget is None else f"{_number(row.budget)} {row.unit}"
        missed = "" if row.is_met else " (missed)"
        lines.append(f"| {row.what} | {_number(row.measured)} {row.unit} | {budget}{missed} | {row.compared} |")
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    budget = "" if row.budget is None else f"  budget {_number(row.budget)}{'' if row.is_met else '  MISSED'}"
    return f"{row.group}: {row.what}: {_number(row.measured)} {row.unit}  {row.compared}{budget}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
