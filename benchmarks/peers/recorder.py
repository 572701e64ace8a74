"""A pytest plugin that writes down what a run said, one JSON value a line, into the file that `PEERS_RECORD` names."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest


class Recorder:
    """Writes down each report, each warning and the exit status."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write down how a phase of a test ended, and what it says."""
        longrepr = report.longrepr
        self._write(
            kind="report",
            test=report.nodeid,
            phase=report.when,
            outcome=report.outcome,
            xfail=getattr(report, "wasxfail", None),
            text=str(longrepr[2] if isinstance(longrepr, tuple) else longrepr or ""),
        )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Write down what could not be collected, or was skipped as a whole."""
        if not report.passed:
            self._write(
                kind="report",
                test=report.nodeid,
                phase="collect",
                outcome=report.outcome,
                xfail=None,
                text=report.longreprtext,
            )

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage, nodeid: str) -> None:
        """Write down a warning."""
        self._write(
            kind="warning",
            test=nodeid,
            category=warning_message.category.__name__,
            text=str(warning_message.message),
        )

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write down how the run ended."""
        self._write(kind="end", status=int(exitstatus))
        self._file.close()

    def _write(self, **values: object) -> None:
        if not self._file.closed:
            self._file.write(json.dumps(values) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """Come up, in the process that hears of every test."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(os.environ["PEERS_RECORD"])))
