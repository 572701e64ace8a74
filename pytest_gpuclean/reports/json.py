"""JSON, after docs/report.schema.json: one test a line, so that two reports can be compared line by line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.reports.data import FORMAT, VERSION, Report, Run
from pytest_gpuclean.reports.shape import plain, read

MOST_BYTES = 256 * 2**20
"""Of a file that is read: some 500,000 tests."""


class JsonWriter:
    """Writes the format that `gpuclean report merge` reads."""

    suffix = ".json"

    def write(self, report: Report, out: TextIO) -> None:
        out.write(
            f'{{"format": {_text(FORMAT)}, "version": {VERSION},\n"notes": {_text(list(report.notes))},\n"runs": ['
        )
        for number, run in enumerate(report.runs):
            out.write(",\n" if number else "\n")
            self._write_run(run, out)
        out.write("\n]}\n")

    def _write_run(self, run: Run, out: TextIO) -> None:
        head = _text(plain(dataclasses.replace(run, tests=(), fixtures=())))
        out.write(f'{head[:-1]},\n"fixtures": [')
        out.writelines(_lines(run.fixtures))
        out.write('],\n"tests": [')
        out.writelines(_lines(run.tests))
        out.write("]}")


def read_report(text: str, source: str) -> Report:
    """Read what `JsonWriter` wrote.

    Args:
        text: what a file holds.
        source: what names the file, for the error.

    Raises:
        InputError: where it is no report, or one of a later version.
    """
    found = parse_json(text, source)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f'{source}: this is no report of pytest-gpuclean: there is no "format": "{FORMAT}"')
    check_version(found.get("version"), VERSION, source)
    if "runs" not in found:
        raise InputError(f'{source}: "runs" is missing')
    return read(Report, found, source)


def check_version(version: object, known: int, source: str) -> None:
    """Refuse a file of a later version, or of none.

    Raises:
        InputError: naming both versions.
    """
    if type(version) is not int or version < 1:
        raise InputError(f'{source}: "version" is no whole number from 1 on')
    if version > known:
        raise InputError(
            f"{source}: version {version} of the format is later than what this pytest-gpuclean reads ({known}); "
            "update it: pip install -U pytest-gpuclean"
        )


def parse_json(text: str, source: str) -> Any:
    """Parse JSON that somebody else may have written.

    Args:
        text: the JSON.
        source: what names it, for the error.

    Raises:
        InputError: where it does not parse, with line and column.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise InputError(f"{source}: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise InputError(f"{source}: it is nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits, NaN
        raise InputError(f"{source}: {error}") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _lines(values: Iterable[Any]) -> Iterator[str]:
    for number, value in enumerate(values):
        yield f"{',' if number else ''}\n{_text(plain(value))}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
