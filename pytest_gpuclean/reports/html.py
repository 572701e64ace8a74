"""One HTML page with everything in it: no network, and nothing foreign that could become markup or a script.

All foreign text goes into one block of JSON, which no browser runs, and page.js puts it on the page as text. A policy
in the page lets no other script run than its own two.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any, TextIO

from pytest_gpuclean.reports.data import Report, Run, TestEntry
from pytest_gpuclean.reports.digest import digest, held_by
from pytest_gpuclean.reports.processes import describe_left
from pytest_gpuclean.reports.series import Names
from pytest_gpuclean.reports.terminal import excuse_of, leak_headline

_LONGEST = 300
"""Of a text: a name of a megabyte is no name."""


class HtmlWriter:
    """Writes a page to look at: memory over time, and tables to sort and filter."""

    suffix = ".html"

    def write(self, report: Report, out: TextIO) -> None:
        scripts = [_asset("uplot.min.js"), _asset("page.js")]
        hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
        policy = (
            f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes}; base-uri 'none'; form-action 'none'"
        )
        licence = _asset("uplot.LICENSE").replace("--", "- -")
        out.write(
            "<!doctype html>\n"
            '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            "<title>gpuclean: GPU memory of a test run</title>\n"
            f"<!-- uPlot, which draws the chart:\n{licence}-->\n"
            f"<style>{_asset('uplot.min.css')}\n{_asset('page.css')}</style>\n</head>\n"
            f"{_asset('page.html')}"
            f'<script type="application/json" id="data">{script_safe(page_data(report))}</script>\n'
        )
        out.writelines(f"<script>{script}</script>\n" for script in scripts)
        out.write("</body>\n</html>\n")


def script_safe(data: Any) -> str:
    """Write JSON that ends no script, whatever texts are in it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def page_data(report: Report) -> dict[str, Any]:
    """Give what the page shows, in columns: names of fields for each test would be most of its size.

    Args:
        report: of one or more runs.
    """
    found = digest(report)
    page = _Page()
    for number, run in enumerate(report.runs):
        page.add(number, run)
    return {
        "headline": found.headline(),
        "leaks_found": found.leaks,
        "facts": list(found.facts()),
        "notes": [_cut(note) for note in report.notes],
        "runs": [_run(number, run) for number, run in enumerate(report.runs)],
        **page.columns(),
    }


class _Page:
    """Gathers columns."""

    def __init__(self) -> None:
        self._outcomes, self._lanes, self._devices = Names(), Names(), Names()
        self._tests: list[list[Any]] = [[] for _ in range(8)]
        self._uses: list[list[int]] = [[] for _ in range(6)]
        self._leaks: list[list[Any]] = []
        self._left: list[list[Any]] = []
        self._steps: list[list[Any]] = []
        self._gaps: list[list[str]] = []
        self._fixtures: list[list[Any]] = []
        self._problems: list[list[str]] = []

    def add(self, number: int, run: Run) -> None:
        """Take in a run."""
        for entry in run.tests:
            self._add_test(number, run, entry)
        for span in run.fixtures:
            times = [round(at - run.started_at, 4) for at in (span.started_at, span.ended_at)]
            lane = self._lanes.number(f"{number} {span.worker}")
            self._fixtures.append([_cut(span.name), span.scope, _cut(span.base), lane, *times])
        for aside in run.asides:
            self._left += [_left(aside.whose, left) for left in aside.left]
        self._steps += [
            [_cut(step.name), step.times, step.given_back_bytes, round(step.seconds, 5), step.failed]
            for step in run.steps
        ]
        self._gaps += [[_cut(name), _cut(reason)] for name, reason in run.not_measured.items()]

    def columns(self) -> dict[str, Any]:
        """Give all of it, by the names that page.js reads."""
        names = ("name", "lane", "outcome", "attempt", "start", "seconds", "cost", "given")
        use_names = ("test", "device", "begin", "end", "reserved", "peak")
        return {
            "outcomes": list(self._outcomes),
            "lanes": list(self._lanes),
            "devices": [_cut(device) for device in self._devices],
            "tests": dict(zip(names, self._tests, strict=True)),
            "uses": dict(zip(use_names, self._uses, strict=True)),
            "leaks": self._leaks,
            "left": self._left,
            "steps": self._steps,
            "gaps": self._gaps,
            "fixtures": self._fixtures,
            "problems": self._problems,
        }

    def _add_test(self, number: int, run: Run, entry: TestEntry) -> None:
        at = len(self._tests[0])
        row = (
            _cut(entry.test),
            self._lanes.number(f"{number} {entry.worker}"),
            self._outcomes.number(entry.outcome),
            entry.attempt,
            round(entry.started_at - run.started_at, 4) if entry.started_at else -1,
            round(entry.seconds, 5),
            round(entry.cost_seconds, 6),
            entry.given_back_bytes,
        )
        for column, value in zip(self._tests, row, strict=True):
            column.append(value)
        for use in entry.memory:
            peak = -1 if use.peak_bytes is None else use.peak_bytes
            device = self._devices.number(use.device)
            figures = (at, device, use.begin_bytes, use.end_bytes, use.reserved_bytes, peak)
            for figure_column, figure in zip(self._uses, figures, strict=True):
                figure_column.append(figure)
        for leak in entry.leaks:
            what = leak_headline(leak).removeprefix("gpuclean: ")
            told = [_cut(what), leak.device, leak.leaked_bytes, _cut(held_by(leak)), _cut(excuse_of(leak))]
            self._leaks.append([at, *told, _cut(f"{entry.file}:{entry.line}") if entry.line else ""])
        self._left += [_left(entry.test, left) for left in entry.left]
        self._problems += [[_cut(entry.test), _cut(problem)] for problem in entry.problems]


def _run(number: int, run: Run) -> dict[str, Any]:
    shard = f"shard {run.shard.index} of {run.shard.total}" if run.shard is not None else ""
    return {
        "name": shard or f"run {number + 1}",
        "started": run.started_at,
        "seconds": round(run.seconds, 3),
        "exit": run.exit_status,
        "partial": _cut(run.partial),
        "about": [part for part in (run.system, f"Python {run.python}" * bool(run.python)) if part],
    }


def _left(whose: str, left: Any) -> list[Any]:
    return [_cut(whose), _cut(describe_left(left)), _cut(left.command), int(left.is_alive)]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"


def _asset(name: str) -> str:
    return resources.files("pytest_gpuclean.reports").joinpath("assets").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
