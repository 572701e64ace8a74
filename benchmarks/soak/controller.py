"""A pytest plugin that notes what the process has that hands the tests out: `-p benchmarks.soak.controller`.

`SOAK_NOTES` says where to write. In a worker it does nothing.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak import system


class Notes:
    """Of one run."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, str, str]] = []
        self.deaths: list[dict[str, int]] = []
        self.open_at_end: list[str] = []
        self.threads_at_end: list[str] = []
        self.children_at_end: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note an outcome; a test whose worker died has the phase `???`."""
        self.reports.append((report.nodeid, str(report.when), report.outcome))

    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_testnodedown(self, error: Any) -> None:
        """Note what the process has when a worker has died."""
        if error is not None:
            self.deaths.append(
                {"descriptors": system.descriptors(), "threads": system.threads(), "rss_bytes": system.rss_bytes()}
            )

    def end(self) -> None:
        """Note what is still there when everybody is through, and write it all down."""
        self.open_at_end = system.descriptors_that(lambda target: "pidfd" in target or "gpuclean" in target)
        main = threading.main_thread()
        self.threads_at_end = [thread.name for thread in threading.enumerate() if thread is not main]
        self.children_at_end = list(map(system.described, system.children()))
        path = Path(os.environ["SOAK_NOTES"])
        unfinished = path.with_suffix(".new")
        unfinished.write_text(json.dumps(vars(self)))
        unfinished.replace(path)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Take notes of this run; the last word is ours, after everybody's own end."""
    if not hasattr(config, "workerinput"):
        notes = Notes()
        config.add_cleanup(notes.end)
        config.pluginmanager.register(notes, "soak-notes")
