"""Writes down what was measured: results as JSON, the rounds for pyperf, and the tables of docs/benchmarks.md."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.budgets import look_at
from benchmarks.measure import ROOT, Extent, Point, Row
from benchmarks.pace import LOOP_SECONDS

RESULTS = ROOT / "benchmarks" / "results" / "results.json"
ROUNDS = ROOT / "benchmarks" / "results" / "rounds.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PLOT = ROOT / "docs" / "benchmarks.svg"
BEGIN, END = "<!-- results: written by `python -m benchmarks` -->", "<!-- end of results -->"
PACKAGES = ("pytest", "torch", "tensorflow-cpu", "psutil", "pytest-memray", "objgraph", "guppy3")
KEPT_METADATA = ("cpu_count", "cpu_model_name", "platform", "python_version", "python_implementation")
"""Of what pyperf collects: what a name or an address of the machine would be is left out."""


def machine(extent: Extent, seconds: float, load: tuple[float, float], loop_seconds: float) -> dict[str, str]:
    """Say what was measured with.

    Args:
        extent: how much was measured.
        seconds: how long that took.
        load: of the machine before and after; 1 a core is all that it can do.
        loop_seconds: what the loop of `benchmarks.pace` took at its quickest.
    """
    found = {"python": platform.python_version(), "packages": ", ".join(_versions())}
    found["system"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_processor()}"
    found["rounds"] = ("few (--quick)" if extent.quick else "all") + (", with the long runs" if extent.long else "")
    found["seconds"] = f"{seconds:.0f}"
    found["loop"] = f"{1e6 * loop_seconds:.1f} µs, of {1e6 * LOOP_SECONDS:.1f}"
    found["load"] = f"{load[0]:.1f} before, {load[1]:.1f} after"
    return found


def _versions() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )


def write(rows: Sequence[Row], about: Mapping[str, str]) -> None:
    """Write everything down.

    Args:
        rows: what was measured.
        about: the machine, as `machine` says it.
    """
    RESULTS.parent.mkdir(exist_ok=True)
    results = {"machine": dict(about), "rows": [to_wire(row) for row in rows]}
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_rounds(rows, ROUNDS)
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), tables(rows, about)), encoding="utf-8")


def to_wire(row: Row) -> dict[str, Any]:
    """Write a row as JSON; its rounds are pyperf's."""
    wire = {**dataclasses.asdict(row), "is_met": row.is_met}
    del wire["rounds"]
    return wire


def from_wire(wire: Mapping[str, Any]) -> Row:
    """Read what `to_wire` wrote."""
    found = {**wire, "point": Point(**wire["point"]) if wire["point"] else None}
    del found["is_met"]
    return Row(**found)


def write_rounds(rows: Iterable[Row], path: Path) -> None:
    """Write the seconds of all rounds in pyperf's format.

    Args:
        rows: what was measured.
        path: of the file.
    """
    import pyperf

    seconds = {name: values for row in rows for name, values in row.rounds.items()}
    machine_of_it = pyperf.Run([1.0], metadata={"name": "machine"}).get_metadata()
    about = {name: machine_of_it[name] for name in KEPT_METADATA if name in machine_of_it}
    found = [
        pyperf.Benchmark(
            [pyperf.Run([value], metadata={"name": name, **about}, collect_metadata=False) for value in kept]
        )
        for name, values in seconds.items()
        if (kept := [value for value in values if value > 0])  # pyperf refuses others
    ]
    if found:
        path.unlink(missing_ok=True)
        pyperf.BenchmarkSuite(found).dump(str(path))


def with_tables(page: str, text: str) -> str:
    """Put tables between the marks of a page.

    Raises:
        ValueError: where the marks are not there, once and in their order.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in tail:
        raise ValueError(f"the page has to have {BEGIN!r} and {END!r}, once each")
    return f"{head}{BEGIN}\n\n{text}\n{END}{tail}"


def tables(rows: Sequence[Row], about: Mapping[str, str]) -> str:
    """Make the tables: what is promised first, then everything that was measured."""
    intro = (
        "Measured with Python {python} ({packages}) on {system}; rounds: {rounds}; {seconds} s in all; load of the "
        "machine {load}; the loop of `benchmarks/pace.py` takes {loop}."
    )
    lines = [intro.format(**about), "", "### What is promised", "", "| | budget | | worst figure |"]
    lines += ["| --- | --- | --- | --- |", *map(_promise_line, look_at(rows))]
    for group, members in groupby(rows, key=lambda row: row.group):
        lines += ["", f"### {group[0].upper()}{group[1:]}", "", "| | cost | budget | compared |"]
        lines += ["| --- | --- | --- | --- |", *map(_row_line, members)]
    return "\n".join(lines) + "\n"


def _promise_line(kept: Any) -> str:
    row = kept.worst
    if row is None:
        figure = f"`python -m benchmarks {kept.promise.measured_by}`"
    else:
        figure = f"{_with_unit(row)} of {number(row.budget)}: {row.what} ({row.group})"
    word = f"**{kept.word}**" if kept.missed else kept.word
    return f"| {kept.promise.what} | {kept.promise.budget} | {word} | {figure} |"


def _row_line(row: Row) -> str:
    budget = "" if row.budget is None else f"{number(row.budget)} {row.unit}"
    missed = "" if row.is_met else " (**missed**)"
    spread = "" if row.spread is None else f" ± {number(row.spread)}"
    return f"| {row.what} | {number(row.measured)}{spread} {row.unit} | {budget}{missed} | {row.compared} |"


def line(row: Row) -> str:
    """Say a figure in one line, for the terminal."""
    budget = "" if row.budget is None else f"  budget {number(row.budget)}{'' if row.is_met else '  MISSED'}"
    return f"{row.group}: {row.what}: {_with_unit(row)}  {row.compared}{budget}"


def _with_unit(row: Row) -> str:
    spread = "" if row.spread is None else f" ± {number(row.spread)}"
    return f"{number(row.measured)}{spread} {row.unit}".rstrip()


def number(value: float) -> str:
    """Write a figure with as many digits as mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
