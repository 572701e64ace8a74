"""The data that flows through the plugin. All of it is frozen; numbers and text alone, never objects of a test."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pytest_gpuclean.units import format_seconds, format_size

Level = Literal["quick", "comprehensive"]
Wire = dict[str, Any]
"""What crosses a process: dicts, lists, text, numbers and None."""


class Account(NamedTuple):
    """One allocator: growth is booked and judged for each by itself."""

    device: str
    """`cuda:0`, `simgpu:1`, `mps`, or `cpu` for host memory."""
    source: str
    """Who says what is in use: `torch`, `tensorflow`, `jax`, `cupy`, `heap`, `arrays`."""


HEAP = Account("cpu", "heap")
"""The process heap: cheap to read, but full of what is no tensor. It raises a doubt and never judges."""
ARRAYS = Account("cpu", "arrays")
"""Live tensors and arrays in host memory: dear to read, so only after a doubt. This is what judges."""

Bytes = dict[Account, int]
"""Bytes for each account. An account that is missing was not measured, which is not the same as 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one source says is in use on one device at one moment."""

    device: str
    """`cuda:0`, `simgpu:1`, or `cpu` for host memory."""
    source: str
    """Who says so: `torch`, `tensorflow`, `jax`, `cupy`, `heap`."""
    allocated_bytes: int
    """Held by live objects, as the allocator rounds them."""
    reserved_bytes: int
    """Held by the allocator, live objects and its cache together."""
    requested_bytes: int | None = None
    """Held by live objects, as they asked for it; None where the source does not say."""
    peak_bytes: int | None = None
    """The most that was allocated since the peak was last reset; None where the source does not say."""
    total_bytes: int | None = None
    """Everything that was ever allocated, freed or not; None where the source does not say."""

    @property
    def account(self) -> Account:
        """The account that this reading belongs to."""
        return Account(self.device, self.source)

    @property
    def held_bytes(self) -> int:
        """What is judged: what live objects asked for, without the allocator's rounding where it is known.

        A block that an allocator could not split counts whole in `allocated_bytes`, up to 1 MiB too much each.
        """
        return self.allocated_bytes if self.requested_bytes is None else self.requested_bytes


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A source that could not be read. Never stands for zero bytes."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every reading of one moment, and what could not be read."""

    readings: tuple[Reading, ...] = ()
    unavailable: tuple[Unavailable, ...] = ()

    def allocated_bytes(self, device: str) -> int | Unavailable:
        """Sum what live objects hold on a device, over the frameworks that are in use.

        Args:
            device: such as `cuda:0` or `cpu`.
        """
        found = [reading.allocated_bytes for reading in self.readings if reading.device == device]
        if found:
            return sum(found)
        reasons = "; ".join(f"{gap.source}: {gap.reason}" for gap in self.unavailable)
        return Unavailable(device, reasons or "no framework has used this device yet")

    def __str__(self) -> str:
        lines = [
            f"{reading.device} {reading.source}: {format_size(reading.allocated_bytes)} allocated, "
            f"{format_size(reading.reserved_bytes)} reserved"
            for reading in self.readings
        ]
        lines += [f"{gap.source}: not measured, {gap.reason}" for gap in self.unavailable]
        return "\n".join(lines) or "nothing in use"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step of a cleanup did."""

    name: str
    status: Literal["done", "skipped", "failed"]
    detail: str = ""
    """What was done, or the reason why it was not."""
    seconds: float = 0.0
    given_back: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Bytes given back by device, live objects and reserved caches together; 0 is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupResult:
    """What a whole cleanup did, step by step."""

    level: Level
    steps: tuple[StepResult, ...] = ()
    before: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Bytes in use by device when it began, live objects and reserved caches together."""
    after: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """The same when it ended."""
    seconds: float = 0.0

    @property
    def given_back_bytes(self) -> int:
        """What all devices together have back."""
        return sum(max(0, size - self.after.get(device, 0)) for device, size in self.before.items())

    @property
    def failed(self) -> tuple[StepResult, ...]:
        """The steps that failed, each with its reason in `detail`."""
        return tuple(step for step in self.steps if step.status == "failed")

    def __str__(self) -> str:
        """One line a step that did something or failed."""
        return "\n".join(_step_line(step) for step in self.steps if step.status != "skipped")


def _step_line(step: StepResult) -> str:
    freed = ", ".join(f"{device} -{format_size(size)}" for device, size in step.given_back.items())
    parts = [step.detail, freed, format_seconds(step.seconds)]
    return f"{step.name}: {'failed: ' if step.status == 'failed' else ''}{', '.join(filter(None, parts))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Tensors or arrays of one sort that are still alive. Types, names and shapes; never values."""

    type_name: str
    """`Tensor`, `Parameter`, `ndarray`, `ArrayImpl`."""
    dtype: str
    """`float32`; empty for a bare storage."""
    shape: tuple[int, ...]
    device: str
    count: int
    held_bytes: int
    """Of all of them together, each storage once."""
    made_at: str = ""
    """Where they were made, such as `test_model.py:12 in test_train`; empty where that was not recorded."""

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Wire) -> Content:
        """Read what `to_wire` wrote."""
        return cls(**{**wire, "shape": tuple(wire["shape"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What keeps leaked memory alive: the chain from something that a person knows to a tensor."""

    kind: str
    """What the chain begins with or goes through: `module global`, `closure`, `thread`, `forward hook`, `fixture`."""
    chain: str
    """As one would type it: `test_model.CACHE["a"][0]`, then the types on the way where no code leads further."""
    cause: str
    """The stable name of the advice: the heading of its page in docs/leaks.md."""
    held_bytes: int
    """Of what leaked, as much as is reached from it."""
    count: int
    """How many of the leaked tensors and arrays are reached from it."""
    detail: str = ""
    """One more fact: where a thread stands now, which bytes a graph has saved."""
    is_known: bool = True
    """Whether `chain` names something; else it says why nothing is named."""

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Wire) -> Holder:
        """Read what `to_wire` wrote."""
        return cls(**wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What leaked and who holds it."""

    contents: tuple[Content, ...] = ()
    """What leaked, by sort, the largest first."""
    holders: tuple[Holder, ...] = ()
    """Who holds it, the largest first."""
    explained_bytes: int = 0
    """How much of the leak these tensors and arrays are."""
    unexplained: str = ""
    """What the rest may be, in a sentence; empty where there is none."""
    left: tuple[str, ...] = ()
    """Threads, file descriptors and shared memory that are left too: information."""
    cut: str = ""
    """What was not looked at, and why; empty where all was."""
    seconds: float = 0.0
    """What it took to find this out."""

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Wire) -> Explanation:
        """Read what `to_wire` wrote."""
        contents = tuple(Content.from_wire(content) for content in wire["contents"])
        holders = tuple(Holder.from_wire(holder) for holder in wire["holders"])
        return cls(**{**wire, "contents": contents, "holders": holders, "left": tuple(wire["left"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Memory that somebody kept: a test, a fixture of a wider scope, or many tests together."""

    kind: Literal["test", "fixture", "module", "session", "peak"]
    name: str
    """The test, the fixture or the module that kept it."""
    device: str
    source: str
    leaked_bytes: int
    """For a peak: the peak itself."""
    threshold_bytes: int
    """For a peak: its limit."""
    scope: str = ""
    """Of a fixture: `class`, `module`, `package` or `session`."""
    tests: int = 0
    """Of a module or session: over how many tests it adds up."""
    allowed: str = ""
    """The reason why it is allowed; empty where it is not."""
    children: str = ""
    """Of memory that left processes held: `a child process (pid 12, python serve.py)`; empty for one's own."""
    known: str = ""
    """Which baseline knows it; empty where none does."""
    kept_once: str = ""
    """What running again showed, where it does not go on growing; empty elsewhere."""
    note: str = ""
    """One more line: an allowance that has expired, the attempt that leaked."""
    explanation: Explanation | None = None
    """What leaked and who holds it; None where that was not looked up."""

    @property
    def excused(self) -> bool:
        """Whether it is told without failing anything."""
        return bool(self.allowed or self.known or self.kept_once)

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Wire) -> Leak:
        """Read what `to_wire` wrote."""
        found = wire["explanation"]
        return cls(**{**wire, "explanation": None if found is None else Explanation.from_wire(found)})


class FixtureHolding(NamedTuple):
    """What a live fixture of a wider scope owns on one device."""

    name: str
    scope: str
    device: str
    held_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What this process holds at one moment, and whose it is as far as that is known."""

    snapshot: Snapshot
    by_test: Mapping[str, int] | None = None
    """By device, what the test holds itself; None where no window is open."""
    by_fixtures: tuple[FixtureHolding, ...] = ()


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
class LeftProcess:
    """A process that was left behind, and what became of it."""

    pid: int
    name: str
    """Its family (`TensorBoard`), or a short label (`python train.py`)."""
    command: str
    """Its command line, shortened, without control characters."""
    started_by: str = ""
    """The test or fixture that started it; empty where that is not known."""
    ended_by: str = ""
    """`SIGINT`, `SIGTERM`, `SIGKILL`, `itself` where it went without a signal, `shut down`; empty where it lives."""
    seconds: float = 0.0
    """From the first signal to its end."""
    ports: tuple[int, ...] = ()
    """TCP ports on which it listened."""
    gpu_bytes: int | None = None
    """GPU memory that it held; None where that was not measured."""
    reason: str = ""
    """Why it still lives or was left alone; which port somebody else still holds; what was cleared away after it."""
    is_spared: bool = False
    """Whether it was not signalled at all: it is left alone, or could not be proved to be the run's own."""

    @property
    def is_alive(self) -> bool:
        """Whether it was still there at the end."""
        return not self.ended_by

    @property
    def is_unkillable(self) -> bool:
        """Whether everything was tried, and it is still there."""
        return self.is_alive and not self.is_spared

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Wire) -> LeftProcess:
        """Read what `to_wire` wrote."""
        return cls(**{**wire, "ports": tuple(wire["ports"])})


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
        cleanups = tuple(
            CleanupResult(**{**cleanup, "steps": tuple(StepResult(**step) for step in cleanup["steps"])})
            for cleanup in wire["cleanups"]
        )
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
