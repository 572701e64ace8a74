"""`gpuclean report merge`: one report of the shards of a suite."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.reports.data import Report
from pytest_gpuclean.reports.digest import digest
from pytest_gpuclean.reports.files import check_target, read_file, write_file
from pytest_gpuclean.reports.json import MOST_BYTES, read_report
from pytest_gpuclean.reports.merge import Merged, merge
from pytest_gpuclean.reports.writers import writer_for
from pytest_gpuclean.units import shorten

_DONE, _MISSING, _NOT_DONE = 0, 1, 2
_LONGEST_NOTE = 400


class ReportCommand:
    """Deals with the files of `--gpu-report`."""

    name = "report"
    summary = "put the JSON reports of several runs into one"
    usage: str | None = "gpuclean report merge FILE.json... -o FILE [--shards N] [--json]"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("action", choices=["merge"], metavar="merge", help="put several reports into one")
        parser.add_argument("files", metavar="FILE.json", nargs="*", help="what --gpu-report=FILE.json has written")
        parser.add_argument(
            "-o",
            "--output",
            metavar="FILE",
            action="append",
            default=[],
            help="the file to write, which ends in .json, .html or .md; may be said again",
        )
        parser.add_argument("--shards", metavar="N", type=_count, help="how many runs there should be")
        parser.add_argument("--json", action="store_true", help="say what came of it as one line of JSON")
        parser.epilog = (
            "exit status: 0 where the report is written; 1 where it is written and shards are missing; 2 where nothing "
            "is written, as a file cannot be read or is no report"
        )

    def run(self, options: argparse.Namespace) -> int:
        files = [*options.files, *options.rest[1:]]
        if not files:
            options.parser.error("there is nothing to merge; name the files that --gpu-report=FILE.json has written")
        if not options.output:
            options.parser.error("-o FILE is missing: where to write to")
        try:
            _check(files, options.output)
            merged = merge([(file, _read(file)) for file in files], options.shards)
            for path in options.output:
                write_file(path, partial(writer_for(path, "-o").write, merged.report))
        except InputError as error:
            print(f"gpuclean report merge: {shorten(str(error), _LONGEST_NOTE)}", file=sys.stderr)
            return _NOT_DONE
        except OSError as error:
            print(f"gpuclean report merge: -o: not written: {error.strerror or error}", file=sys.stderr)
            return _NOT_DONE
        _tell(merged, options.output, as_json=options.json)
        return _DONE if merged.is_whole else _MISSING


def _check(files: Sequence[str], outputs: Sequence[str]) -> None:
    for path in outputs:
        writer_for(path, "-o")
        if any(os.path.exists(path) and os.path.exists(file) and os.path.samefile(path, file) for file in files):
            raise InputError(f"-o: {path!r} is one of the files to merge")
        check_target(path, "-o")


def _read(file: str) -> Report:
    return read_report(read_file(file, MOST_BYTES, "merge"), file)


def _tell(merged: Merged, outputs: Sequence[str], *, as_json: bool) -> None:
    found = digest(merged.report)
    runs = len(merged.report.runs)
    if as_json:
        told = {"written": list(outputs), "runs": runs, "tests": found.tests, "leaks": found.leaks}
        print(json.dumps({**told, "is_whole": merged.is_whole, "notes": list(merged.report.notes)}))
        return
    for note in merged.report.notes:
        print(f"gpuclean report merge: {shorten(note, _LONGEST_NOTE)}", file=sys.stderr)
    counts = f"{runs} run{'s' * (runs != 1)}, {found.tests:,} test{'s' * (found.tests != 1)}"
    print(f"{counts}: {found.headline()}; in {', '.join(outputs)}")


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < len(text) < 7:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no count; write a whole number")
