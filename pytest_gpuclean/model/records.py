"""What is kept of a test that is over, and what the tests of a run add up to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pytest_gpuclean.model import Wire
from pytest_gpuclean.model.cleanup import CleanupResult
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.processes import LeftProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFailure:
    """A test that failed, or had to run again, because memory ran out or a device was lost."""

    test: str
    kind: Literal["out_of_memory", "lost", "consequence"]
    """A consequence failed on a device that another test had broken."""
    device: str
    """Empty where the error does not say which."""
    error: str
    """Its type and the first line of its text."""
    asked_bytes: int | None = None
    """What the allocation that failed had asked for; None where the error does not say."""
    retries: int = 0
    """How often the test was run again for it."""
    outcome: str = ""
    """What the last of these runs came to: `passed`, `failed`, `skipped`; empty where there was none."""
    cause: str = ""
    """Of a consequence: the test that broke the device."""

    @property
    def retried(self) -> str:
        """That it was run again and what came of it; empty where it was not."""
        times = f" {self.retries} times" if self.retries > 1 else ""
        return f"retried{times} after running out of memory: {self.outcome}" if self.retries else ""

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Wire) -> DeviceFailure:
        """Read what `to_wire` wrote."""
        return cls(**wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRecord:
    """What is kept of one test: what it leaked, what was given back, what the plugin cost."""

    __test__ = False  # pytest would collect a class of this name where a test imports it

    test: str
    leaks: tuple[Leak, ...] = ()
    cleanups: tuple[CleanupResult, ...] = ()
    problems: tuple[str, ...] = ()
    """Trouble of our own, or of somebody's probe or cleaner: told, and without effect on the outcome."""
    left: tuple[LeftProcess, ...] = ()
    """Processes that it left behind, with what became of them."""
    given_back_bytes: int = 0
    """By cleaning and by judging together."""
    seconds: float = 0.0
    """What the plugin itself spent."""
    assigned: str = ""
    """The GPU that the worker was given which ran it: `2`, `GPU-8f6c...`; empty where it was given none."""

    @property
    def is_told(self) -> bool:
        """Whether the summary of the run has a line about it."""
        return bool(self.leaks or self.problems or self.left)

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Wire) -> TestRecord:
        """Read what `to_wire` wrote."""
        cleanups = tuple(CleanupResult.from_wire(cleanup) for cleanup in wire["cleanups"])
        leaks = tuple(Leak.from_wire(leak) for leak in wire["leaks"])
        left = tuple(LeftProcess.from_wire(process) for process in wire["left"])
        return cls(**{**wire, "cleanups": cleanups, "leaks": leaks, "problems": tuple(wire["problems"]), "left": left})


@dataclass(slots=True, kw_only=True)
class RunReport:
    """What a whole run adds up to. Constant in the number of clean tests: those are only counted."""

    tests: int = 0
    seconds: float = 0.0
    given_back_bytes: int = 0
    cleanups: int = 0
    steps: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    """What each step of cleaning came to: how often it did something, how often it failed, seconds, bytes."""
    records: list[TestRecord] = dataclasses.field(default_factory=list)
    """Of the tests with something to tell: a leak, a process that was left, or a problem."""
    failures: list[DeviceFailure] = dataclasses.field(default_factory=list)
    """Of the tests that ran out of memory, or met a lost device."""

    def count(self, seconds: float) -> None:
        """Count a test in that there is nothing to say of.

        Args:
            seconds: what the plugin spent on it.
        """
        self.tests += 1
        self.seconds += seconds

    def add(self, record: TestRecord) -> None:
        """Count a test in."""
        self.count(record.seconds)
        self.given_back_bytes += record.given_back_bytes
        self.cleanups += len(record.cleanups)
        for cleanup in record.cleanups:
            for step in cleanup.steps:
                if step.status != "skipped":
                    failed = step.status == "failed"
                    self.add_steps({step.name: [not failed, failed, step.seconds, sum(step.given_back.values())]})
        if record.is_told:
            self.records.append(record)

    def add_steps(self, steps: Mapping[str, Iterable[float]]) -> None:
        """Add what the steps of one cleanup, or of another process, came to."""
        for name, figures in steps.items():
            self.steps[name] = [a + b for a, b in zip(self.steps.get(name, (0, 0, 0.0, 0)), figures, strict=True)]
