"""`gpuclean clean`: the button for after a crash. What killed runs left is stopped, and what is named."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pytest_gpuclean.cli.console import Console, write_json
from pytest_gpuclean.cli.reading import read_seconds
from pytest_gpuclean.errors import InputError
from pytest_gpuclean.model.cleanup import StepResult
from pytest_gpuclean.model.processes import LeftProcess

if TYPE_CHECKING:
    from pytest_gpuclean.cleanup.system import SystemCleaners
    from pytest_gpuclean.processes.selectors import Selector

_LEVELS = ("quick", "comprehensive")
_NOT_ALL = 1


class CleanCommand:
    """Stops what killed runs of this user left.

    Args:
        system: the steps of the whole machine's memory.
    """

    name = "clean"
    summary = "stop what killed runs left, and what is named beside it"
    usage: str | None = None

    def __init__(self, system: SystemCleaners | None = None) -> None:
        self._system = system

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "level",
            metavar="LEVEL",
            nargs="?",
            choices=_LEVELS,
            default="comprehensive",
            help="quick: what killed runs left; comprehensive: what is named too (default: comprehensive)",
        )
        parser.add_argument(
            "--host-wide",
            metavar="NAMES",
            action="append",
            default=[],
            help="what else is stopped or cleared: tensorboard, ros2, port:N, script:NAME, drop-caches, gpu-reset, "
            "with commas between",
        )
        parser.add_argument(
            "--settle",
            metavar="SECONDS",
            type=read_seconds,
            default=10.0,
            help="the upper bound for stopping processes (default: 10)",
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
        parser.add_argument("--json", action="store_true", help="write what was done as JSON")

    def run(self, options: argparse.Namespace) -> int:
        from pytest_gpuclean.cleanup.system import SystemCleaners
        from pytest_gpuclean.processes.selectors import parse_selectors

        try:
            selectors = parse_selectors(options.host_wide, "--host-wide") if options.host_wide else ()
        except InputError as error:
            options.parser.error(str(error))
        if selectors and options.level == "quick":
            options.parser.error("--host-wide takes the level comprehensive")
        # Lines that have to be told before a signal go where they do not disturb the document.
        console = Console(sys.stderr if options.json else None)
        done = _Cleaning(self._system or SystemCleaners(), selectors, options.settle, console, is_dry=options.dry_run)
        report = done.run()
        if options.json:
            write_json(report)
        return _NOT_ALL if done.is_something_left else 0


class _Cleaning:
    """One call of the command."""

    def __init__(
        self,
        system: SystemCleaners,
        selectors: tuple[Selector, ...],
        settle_seconds: float,
        console: Console,
        *,
        is_dry: bool,
    ) -> None:
        self.is_something_left = False
        self._system = system
        self._selectors = selectors
        self._settle_seconds = settle_seconds
        self._console = console
        self._is_dry = is_dry
        self._has_told = False

    def run(self) -> dict[str, Any]:
        report: dict[str, Any] = {
            "dry_run": self._is_dry,
            **self._sweep(),
            **self._stop_named(),
            "steps": self._clear_named(),
        }
        if not self._has_told:
            self._tell("nothing is left of killed runs" + (", and nothing runs that was named" * bool(self._selectors)))
        return report

    def _sweep(self) -> dict[str, Any]:
        from pytest_gpuclean.processes.left_runs import sweep

        swept = sweep(settle_seconds=self._settle_seconds, report_only=self._is_dry)
        for run in swept.runs:
            self._tell(f"{run.name} was killed and left {len(run.processes)} process{'es' * (len(run.processes) > 1)}")
            for process in run.processes:
                self._tell_process(process)
            # Where some other run cannot be read, nothing is stopped for its sake.
            self.is_something_left |= bool(swept.notes) and any(process.is_alive for process in run.processes)
        for note in swept.notes:
            self._tell(f"note: {note}")
        runs = [{"name": run.name, "processes": [each.to_wire() for each in run.processes]} for run in swept.runs]
        return {"killed_runs": runs, "notes": list(swept.notes)}

    def _stop_named(self) -> dict[str, Any]:
        from pytest_gpuclean.processes.host_wide import carry_out, plan

        if not any(selector.means_processes for selector in self._selectors):
            return {"named": [], "stopped": []}
        planned = plan(self._selectors)
        if self._is_dry:
            for line in planned.lines:
                self._tell(line.replace(" stops ", " would stop ", 1))
            left: list[LeftProcess] = []
        else:
            left = carry_out(planned, tell=self._tell, settle_seconds=self._settle_seconds)
            for process in left:
                self._tell_process(process)
        return {"named": list(planned.lines), "stopped": [process.to_wire() for process in left]}

    def _clear_named(self) -> list[dict[str, Any]]:
        from dataclasses import asdict

        from pytest_gpuclean.cleanup.interface import Occasion
        from pytest_gpuclean.cleanup.runner import run_cleanup

        steps = self._system.named([selector.kind for selector in self._selectors])
        if self._is_dry:
            for step in steps:
                self._tell(f"{step.name} would be done, where it can be")
            return [{"name": step.name, "status": "skipped", "detail": "dry run"} for step in steps]
        results = run_cleanup(steps, Occasion(level="comprehensive"), {}, dict).steps
        for result in results:
            self._tell_step(result)
        return [asdict(result) for result in results]

    def _tell_step(self, result: StepResult) -> None:
        self.is_something_left |= result.status == "failed"
        self._tell(f"{result.name}: {'failed: ' * (result.status == 'failed')}{result.detail}")

    def _tell_process(self, process: LeftProcess) -> None:
        from pytest_gpuclean.reports.processes import describe_left

        self.is_something_left |= process.is_unkillable
        self._tell(describe_left(process), indent=1)
        self._console.detail(process.command)

    def _tell(self, line: str, indent: int = 0) -> None:
        self._has_told = True
        self._console.line(line, indent)
