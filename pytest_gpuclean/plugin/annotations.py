"""Leaks as annotations, where the run is one of GitHub Actions."""

from __future__ import annotations

import os

import pytest

from pytest_gpuclean.plugin.guard import guard_of
from pytest_gpuclean.plugin.names import worker_of
from pytest_gpuclean.plugin.telling import records_of
from pytest_gpuclean.reports.github import Annotation, annotation_lines


class Annotations:
    """Notes where tests that leak are, and prints that at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self._root = str(config.rootpath)
        self._found: dict[tuple[str, str], list[Annotation]] = {}
        self._guard = guard_of(config, "an annotation is missing")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the leaks of a test; its last report has those of all attempts."""
        with self._guard:
            self._note(report)

    def _note(self, report: pytest.TestReport) -> None:
        leaks = [leak for record in records_of(report) for leak in record.leaks if not leak.excused]
        if not leaks:
            return
        file, line, _ = report.location
        path = os.path.normpath(os.path.join(self._root, file))
        self._found[worker_of(report), report.nodeid] = [
            Annotation(
                kind="error" if report.failed else "warning",
                file=path,
                line=0 if line is None or leak.kind == "module" else line + 1,
                test=report.nodeid,
                leak=leak,
            )
            for leak in leaks
        ]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print them: GitHub reads commands at the start of a line."""
        with self._guard:
            found = [annotation for annotations in self._found.values() for annotation in annotations]
            for line in annotation_lines(found, os.environ.get("GITHUB_WORKSPACE", "")):
                terminalreporter.ensure_newline()
                terminalreporter.write_line(line)
