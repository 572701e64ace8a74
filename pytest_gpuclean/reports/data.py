"""What a report says: one or more runs, each with its tests. docs/report.schema.json is made from these classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.processes import LeftProcess

VERSION = 1
"""Of the format: raised where a reader of the old one would misunderstand the new one."""
FORMAT = "pytest-gpuclean report"

Outcome = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed", "rerun", "crashed", "unfinished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """What one test did to one device, by the figures of its own process."""

    device: str
    """Such as `cuda:0`, or `cpu` for host memory."""
    begin_bytes: int
    """Held by live objects before its setup."""
    end_bytes: int
    """Held by live objects after its teardown and cleaning."""
    reserved_bytes: int
    """Held by the allocator at the end, live objects and its cache together."""
    peak_bytes: int | None = None
    """The most that live objects held in between; missing where the source does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixtureSpan:
    """The life of a fixture of a wider scope."""

    name: str
    scope: str
    """`class`, `module`, `package` or `session`."""
    base: str = ""
    """Where it is defined: the folder or module."""
    worker: str = ""
    """Which worker of pytest-xdist had it; empty without."""
    started_at: float
    """When its setup began, in seconds since 1970."""
    ended_at: float
    """When its teardown began, in seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestEntry:
    """One test, or one attempt of a test that ran again."""

    __test__ = False  # pytest would collect a class of this name where a test imports it

    test: str
    """Its node id."""
    outcome: Outcome
    """`error` where its setup or teardown failed, as by a leak; `rerun` where another attempt followed."""
    started_at: float = 0.0
    """When its setup began, in seconds since 1970; 0 where it was not watched."""
    seconds: float = 0.0
    """From the begin of its setup to the end of its teardown, cleaning included."""
    worker: str = ""
    """Which worker of pytest-xdist ran it; empty without."""
    attempt: int = 1
    memory: tuple[DeviceUse, ...] = ()
    """Devices that it used. The others are as the test before it in the same worker has left them."""
    given_back_bytes: int = 0
    """By cleaning and judging."""
    cost_seconds: float = 0.0
    """What of its time the plugin took."""
    file: str = ""
    """Where it is defined, below the root of the run; told of tests with something in the fields below."""
    line: int = 0
    """The line in that file, from 1 on; 0 where it is not known."""
    leaks: tuple[Leak, ...] = ()
    left: tuple[LeftProcess, ...] = ()
    """Processes that it left behind, and what became of them."""
    problems: tuple[str, ...] = ()
    """Trouble of the plugin itself, or of a probe or cleaner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """Processes that no single test has left."""

    whose: str
    """`the whole run`, `a killed run`, `a worker that died`, `--gpu-host-wide`."""
    left: tuple[LeftProcess, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTotal:
    """What one step of cleaning came to over a run."""

    name: str
    times: int = 0
    """How often it did something."""
    failed: int = 0
    seconds: float = 0.0
    given_back_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Which part of a suite a run was, where the suite is split over machines."""

    index: int
    """From 1 on."""
    total: int
    source: str
    """What said so: an option of pytest, or the variables of a CI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of pytest."""

    id: str
    """Another one for each run."""
    started_at: float
    """In seconds since 1970."""
    seconds: float
    exit_status: int
    """Of pytest."""
    partial: str = ""
    """Why some of its tests did not run to their end; empty where all did."""
    shard: Shard | None = None
    workers: tuple[str, ...] = ()
    """Of pytest-xdist; empty without."""
    python: str = ""
    pytest: str = ""
    plugin: str = ""
    system: str = ""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What cleaning and the gate were set to."""
    cleanups: int = 0
    given_back_bytes: int = 0
    cost_seconds: float = 0.0
    """What the plugin took, summed over the workers."""
    steps: tuple[StepTotal, ...] = ()
    not_measured: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What could not be measured, with the reason."""
    asides: tuple[Aside, ...] = ()
    fixtures: tuple[FixtureSpan, ...] = ()
    tests: Iterable[TestEntry] = ()
    """In the order in which they ended. It can be gone through more than once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One or more runs."""

    runs: tuple[Run, ...] = ()
    notes: tuple[str, ...] = ()
    """What a merge has to say: runs that are there twice, shards that are missing."""
