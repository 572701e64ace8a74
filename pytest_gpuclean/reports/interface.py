"""What writes a report in one format."""

from __future__ import annotations

from typing import Protocol, TextIO

from pytest_gpuclean.reports.data import Report


class Writer(Protocol):
    """One format."""

    suffix: str
    """Of its files, such as `.json`."""

    def write(self, report: Report, out: TextIO) -> None:
        """Write a report down.

        Args:
            report: whose texts are foreign: names of tests, of holders, of processes.
            out: where to.
        """
