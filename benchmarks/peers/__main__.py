"""`python -m benchmarks.peers [NAME ...]`: others' suites without and with the plugin, side by side."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.measure import PLUGIN, ROOT
from benchmarks.peers.comparing import Said, differences, unsteady
from benchmarks.peers.running import CannotRun, Run, fetch, run
from benchmarks.peers.suites import SUITES, Suite

RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
PAGE = ROOT / "docs" / "peers.md"
BEGIN, END = "<!-- results: written by `python -m benchmarks.peers` -->", "<!-- end of results -->"
MODES = {
    "off": tuple(PLUGIN),
    "quick": (*PLUGIN, "--gpu-clean=quick"),
    "comprehensive": (*PLUGIN, "--gpu-clean=comprehensive"),
}
WORKERS = {"serial": (), "-n 2": ("-p", "xdist", "-n", "2")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One suite in one mode beside itself without the plugin."""

    suite: str
    workers: str
    mode: str
    tests: int
    outcomes: str
    warnings: int
    leaks_told: int
    unsteady: tuple[str, ...]
    """Tests that differ between two runs without the plugin, and are not compared."""
    differences: tuple[str, ...]
    cpu_ratio: float
    wall_ratio: float


def main() -> int:
    """Run the suites; the exit status says whether all of them ran, and none differs."""
    names = [suite.name for suite in SUITES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(names)}; all by default")
    parser.add_argument("--sources", type=Path, metavar="FOLDER", help="where the source distributions are already")
    parser.add_argument("--rounds", type=int, default=1, help="how often each mode runs; the quickest counts")
    options = parser.parse_args()
    unknown = sorted({*options.names} - {*names})
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such suite; there are {', '.join(names)}")
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for suite in SUITES:
        if options.names and suite.name not in options.names:
            continue
        with tempfile.TemporaryDirectory(prefix="peers-") as folder:
            try:
                rows += compare(suite, Path(folder), options.sources, options.rounds)
                _write(rows, failed)  # what is done stays, however the next one ends
            except CannotRun as error:
                failed[f"{suite.name} {suite.version}"] = str(error)
                print(f"{suite.name}: cannot run: {error}", flush=True)
    _write(rows, failed)
    differing = sum(bool(row.differences) for row in rows)
    print(f"{len(rows)} comparisons, {differing} differ, {len(failed)} suites could not run")
    return 1 if differing or failed or not rows else 0


def compare(suite: Suite, work: Path, sources: Path | None, rounds: int) -> list[Row]:
    """Run one suite in every mode, serially and with workers, in turns with runs without the plugin."""
    folder = fetch(suite, work, sources)
    rows = []
    for workers, how in WORKERS.items():
        # The first run also writes what caches there are; its time does not count.
        first = run(suite, folder, work, how)
        if not first.said.reports:
            raise CannotRun("it has no test here")
        bare: list[Run] = []
        runs: dict[str, list[Run]] = {mode: [] for mode in MODES}
        for _ in range(rounds):
            bare.append(run(suite, folder, work, how))
            for mode, arguments in MODES.items():
                runs[mode].append(run(suite, folder, work, (*how, *arguments)))
        shaky = set().union(*(unsteady(first.said, again.said, in_order=workers == "serial") for again in bare))
        for mode, done in runs.items():
            row = _row(suite, workers, mode, bare, done, shaky)
            rows.append(row)
            print(_line(row), flush=True)
            for text in row.differences:
                print(f"    {text}", flush=True)
    return rows


def _row(suite: Suite, workers: str, mode: str, bare: list[Run], done: list[Run], shaky: set[str]) -> Row:
    plain: Said = bare[0].said
    found = [
        text for one in done for text in differences(plain, one.said, in_order=workers == "serial", apart_from=shaky)
    ]
    return Row(
        suite=f"{suite.name} {suite.version}",
        workers=workers,
        mode=mode,
        tests=len(plain.reports),
        outcomes=", ".join(f"{count} {outcome}" for outcome, count in sorted(plain.counts.items())),
        warnings=plain.warnings.total(),
        leaks_told=done[0].said.told,
        unsteady=tuple(sorted(shaky)),
        differences=tuple(dict.fromkeys(found)),
        cpu_ratio=min(one.cpu_seconds for one in done) / min(one.cpu_seconds for one in bare),
        wall_ratio=min(one.wall_seconds for one in done) / min(one.wall_seconds for one in bare),
    )


def _line(row: Row) -> str:
    verdict = f"{len(row.differences)} DIFFER" if row.differences else "identical"
    return (
        f"{row.suite} {row.workers} {row.mode}: {row.outcomes}: {verdict}, "
        f"{row.leaks_told} leaks told, processor time x {row.cpu_ratio:.2f}, time x {row.wall_ratio:.2f}"
    )


def _write(rows: list[Row], failed: dict[str, str]) -> None:
    """Write the figures down; those of suites that did not run now stay as they were."""
    place = [f"{suite.name} {suite.version}" for suite in SUITES]
    ran = {row.suite for row in rows} | {*failed}
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"rows": [], "could_not_run": {}}
    kept = [Row(**row) for row in before["rows"] if row["suite"] in {*place} - ran]
    rows = sorted([*kept, *rows], key=lambda row: place.index(row.suite))
    failed = {**{name: why for name, why in before["could_not_run"].items() if name not in ran}, **failed}
    machine = {
        "python": platform.python_version(),
        "pytest": version("pytest"),
        "torch": version("torch"),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    results = {"machine": machine, "rows": [dataclasses.asdict(row) for row in rows], "could_not_run": failed}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n\n{_table(machine, rows, failed)}\n{END}{tail}", encoding="utf-8")


def _table(machine: dict[str, str], rows: list[Row], failed: dict[str, str]) -> str:
    lines = [
        "Run with Python {python}, pytest {pytest} and torch {torch} on {system}.".format(**machine),
        "",
        "| suite | outcomes without | warnings | with the plugin | outcomes | leaks told | processor time | time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        verdict = f"**{len(row.differences)} differ**" if row.differences else "identical"
        if row.unsteady:
            verdict += f" ({len(row.unsteady)} unsteady)"
        lines.append(
            f"| {row.suite}, {row.workers} | {row.outcomes} | {row.warnings} | {row.mode} | {verdict} "
            f"| {row.leaks_told} | x {row.cpu_ratio:.2f} | x {row.wall_ratio:.2f} |"
        )
    names = sorted({name for row in rows for name in row.unsteady})
    if names:
        lines += ["", "Unsteady, two runs without the plugin differ: " + ", ".join(f"`{name}`" for name in names) + "."]
    lines += [f"\n{name} could not run: {reason}" for name, reason in failed.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
