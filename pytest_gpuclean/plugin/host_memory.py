"""`drop-caches` and `gpu-reset` in a test run: told as they are done, and a reason once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pytest_gpuclean.cleanup.interface import Occasion
from pytest_gpuclean.cleanup.runner import run_cleanup
from pytest_gpuclean.cleanup.system import SystemCleaners
from pytest_gpuclean.model.records import TestRecord
from pytest_gpuclean.processes.selectors import Selector
from pytest_gpuclean.units import format_seconds


class HostMemory:
    """Carries out what the user has named of the whole machine's memory.

    Args:
        tell: prints a line at once.
        add: takes a record for the summary.
    """

    def __init__(self, tell: Callable[[str], None], add: Callable[[TestRecord], None]) -> None:
        self.cleaners = SystemCleaners()
        self._tell = tell
        self._add = add
        self._told: set[str] = set()

    def clean(self, named: Iterable[Selector]) -> None:
        """Do what is named; a step that cannot be done is a line of the summary."""
        steps = self.cleaners.named([selector.kind for selector in named])
        result = run_cleanup(steps, Occasion(level="comprehensive"), {}, dict)
        problems = []
        for step in result.steps:
            if step.status == "done":
                self._tell(f"--gpu-host-wide: {step.name}: {step.detail}, {format_seconds(step.seconds)}")
            elif step.status == "failed" and step.detail not in self._told:
                self._told.add(step.detail)
                problems.append(f"{step.name} failed: {step.detail}")
        if problems:
            self._add(TestRecord(test="--gpu-host-wide", problems=tuple(problems)))
