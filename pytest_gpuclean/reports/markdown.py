"""Markdown for a pull request or a job summary: what leaked first, and no more than a comment takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from pytest_gpuclean.reports.data import Report
from pytest_gpuclean.reports.digest import Digest, digest, held_by
from pytest_gpuclean.reports.processes import describe_left
from pytest_gpuclean.reports.terminal import excuse_of, leak_headline
from pytest_gpuclean.units import format_seconds, format_size

_MOST_ROWS = 50
_MOST_LEFT = 25
_MOST_GAPS = 20
_LONGEST = 160
"""GitHub takes 65,536 characters in a comment: the tables stay below that, however long the names are."""


class MarkdownWriter:
    """Writes tables of what there is to tell."""

    suffix = ".md"

    def write(self, report: Report, out: TextIO) -> None:
        found = digest(report)
        out.write(f"## gpuclean: {found.headline()}\n\n{' · '.join(found.facts())}\n")
        for parts in (
            _notes(report),
            _leaks(found),
            _left(report, found),
            _peaks(found),
            _steps(report),
            _gaps(report),
        ):
            out.writelines(f"{line}\n" for line in parts)


def code(text: str, longest: int = _LONGEST) -> str:
    """Write foreign text as code: nothing in it is markup, a mention or a link, nor ends the table that it is in.

    Args:
        text: anything.
        longest: how much of it to write; what is more is cut from its middle.
    """
    plain = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * longest]).strip()
    if len(text) > longest:
        half = longest // 2
        tail = "".join(letter if letter.isprintable() else " " for letter in text[-half:]).strip()
        plain = f"{plain[:half]}…{tail}"
    if not plain:
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    space = " " if plain[0] == "`" or plain[-1] == "`" else ""
    plain = plain.replace("|", "\\|")
    # GitHub reads `\|` in a table as `|` also within code; a backslash before it would end that.
    return f"{fence}{space}{plain}{space}{fence}"


def _notes(report: Report) -> Iterator[str]:
    partial = [f"a run is not whole: {run.partial}" for run in report.runs if run.partial]
    for note in [*report.notes, *partial]:
        yield f"\n> **Note:** {code(note, 400)}"


def _leaks(found: Digest) -> Iterator[str]:
    rows = [(entry, leak) for entry in found.told for leak in entry.leaks]
    rows.sort(key=lambda row: (row[1].excused, -row[1].leaked_bytes))
    yield from _table(
        "Leaks",
        ("test", "what", "held by", "excused"),
        [
            (
                code(entry.test),
                code(leak_headline(leak).removeprefix("gpuclean: ")),
                code(held_by(leak)),
                code(excuse_of(leak)),
            )
            for entry, leak in rows[:_MOST_ROWS]
        ],
        len(rows),
    )


def _left(report: Report, found: Digest) -> Iterator[str]:
    rows = [(aside.whose, left) for run in report.runs for aside in run.asides for left in aside.left]
    rows += [(entry.test, left) for entry in found.told for left in entry.left]
    rows.sort(key=lambda row: not row[1].is_alive)
    told = [(code(whose), code(describe_left(left)), code(left.command)) for whose, left in rows[:_MOST_LEFT]]
    yield from _table("Processes that were left", ("by", "what became of it", "command"), told, len(rows))


def _peaks(found: Digest) -> Iterator[str]:
    rows = [(code(test), code(device), format_size(size)) for size, device, test in found.peaks]
    yield from _folded(_table("Highest peaks", ("test", "device", "peak"), rows, len(rows)))


def _steps(report: Report) -> Iterator[str]:
    totals: dict[str, list[float]] = {}
    for run in report.runs:
        for step in run.steps:
            total = totals.setdefault(step.name, [0, 0, 0, 0])
            for at, figure in enumerate((step.times, step.given_back_bytes, step.seconds, step.failed)):
                total[at] += figure
    rows = [
        (code(name), f"{times:,}", format_size(int(size)), format_seconds(seconds), f"{failed:,}")
        for name, (times, size, seconds, failed) in sorted(totals.items(), key=lambda item: -item[1][2])
    ]
    header = ("step", "times", "given back", "took", "failed")
    yield from _folded(_table("Cleaning", header, rows[:_MOST_ROWS], len(rows)))


def _gaps(report: Report) -> Iterator[str]:
    gaps = {name: reason for run in report.runs for name, reason in run.not_measured.items()}
    rows = [(code(name), code(reason)) for name, reason in list(gaps.items())[:_MOST_GAPS]]
    yield from _table("Not measured", ("what", "why"), rows, len(gaps))


def _table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], total: int) -> Iterator[str]:
    rows = list(rows)
    if not rows:
        return
    yield f"\n### {title}\n"
    yield f"| {' | '.join(header)} |"
    yield f"| {' | '.join('---' for _ in header)} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    if total > len(rows):
        yield f"\nand {total - len(rows):,} more"


def _folded(lines: Iterable[str]) -> Iterator[str]:
    lines = list(lines)
    if lines:
        title = lines[0].strip("\n# ")
        yield f"\n<details><summary>{title}</summary>\n"
        yield from lines[1:]
        yield "\n</details>"
