"""`gpuclean ps`: the processes of runs that are alive, and what killed ones left, each with its proof."""

from __future__ import annotations

import argparse
import time
from typing import Any

from pytest_gpuclean.cli.console import Console, format_age, write_json

_PROOFS = {
    "descendant": "it is below the run",
    "cookie": "it bears the run's mark in its environment",
    "open ledger": "it was forked from the run",
    "recorded": "the run has written it down",
}


class PsCommand:
    """Lists processes by the run that has started them."""

    name = "ps"
    summary = "list the processes of runs, and what killed runs left, with the proof that they are theirs"
    usage: str | None = None

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="write it as JSON")

    def run(self, options: argparse.Namespace) -> int:
        from pytest_gpuclean.processes.listing import list_runs

        listing = list_runs()
        if options.json:
            write_json(listing.to_wire())
            return 0
        console = Console()
        for run in listing.to_wire()["runs"]:
            _show(run, console)
        if not listing.runs:
            console.line("no run is alive, and none that was killed has left a process", indent=0)
        for note in listing.notes:
            console.line(f"note: {note}", indent=0)
        return 0


def _show(run: dict[str, Any], console: Console) -> None:
    age = format_age(time.time() - run["started_at"])
    console.heading(f"{run['name']}: {'alive' if run['is_alive'] else 'killed'}, begun {age} ago")
    for process in run["processes"]:
        ports = f", port {', '.join(map(str, process['ports']))}" if process["ports"] else ""
        starter = f", started by {process['started_by']}" if process["started_by"] else ""
        console.line(f"{process['name']} (pid {process['pid']}{ports}){starter}: {_PROOFS[process['proof']]}")
        if process["doubt"]:
            console.line(f"left alone: {process['doubt']}", indent=2)
        console.detail(process["command"])
    if not run["processes"]:
        console.line("no process of its own")
