"""What a subcommand of `gpuclean` is."""

from __future__ import annotations

import argparse
from typing import Protocol


class Command(Protocol):
    """One subcommand."""

    name: str
    summary: str
    """In one line, for `gpuclean --help`."""
    usage: str | None
    """For its own help; None where argparse writes it."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add its options to its parser."""

    def run(self, options: argparse.Namespace) -> int:
        """Do it.

        Args:
            options: what was parsed; `rest` is what stood behind `--`, with the `--` itself.

        Returns:
            The exit status.
        """
