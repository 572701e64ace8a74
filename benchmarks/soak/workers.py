"""Runs under xdist whose workers die, one after the other: nothing is left, and nothing gets slower."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import PLUGIN
from benchmarks.soak import checks, plans, system
from benchmarks.soak.checks import Check
from benchmarks.soak.plans import RunPlan
from benchmarks.soak.serial import clean_environment, left_files

LIMIT_SECONDS = 240
"""No run takes as long on any machine."""
MOST_ZOMBIES = 2
"""A worker that ends hands over those of its children whose end it has not asked for yet. Beside them there is the
middle one of each daemon's three processes: nothing tells it from a child that a test has forked and will wait for."""
CALM_TESTS, CALM_RUNS = 200, 3
DEATHS = 24
LOCK_SUFFIX = ".lock"
WORDS_OF_TROUBLE = ("INTERNALERROR", "Traceback (most recent", "trouble of gpuclean itself", "Exception ignored")
KINDS = (
    "runs that did not end",
    "wrong exit status",
    "wrong outcomes",
    "errors of pytest or of the plugin",
    "descriptors left open",
    "threads left",
    "child processes left",
    "zombies left",
    "processes left",
    "temporary files left",
    "shared memory left",
    "lock files left",
)


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of one run."""

    status: int | None
    """None where it did not end by itself."""
    seconds: float
    notes: Mapping[str, Any] | None
    log: str


@dataclass(slots=True)
class Troubles:
    """What was wrong, by what it was, over all runs."""

    runs: int = 0
    tests: int = 0
    deaths: int = 0
    killed: int = 0
    without_end_either: int = 0
    """Runs that ended neither with the plugin nor without it."""
    left: dict[str, list[str]] = field(default_factory=lambda: {what: [] for what in KINDS})

    def add(self, kind: str, number: int, found: list[str] | set[str]) -> None:
        """Take in what was wrong with a run, and say it at once."""
        if found:
            told = f"run {number}: {'; '.join(sorted(found)[:3])}"
            print(f"       {kind}: {told}", flush=True)
            self.left[kind].append(told)

    def checks(self) -> list[Check]:
        """Give a check for each kind of trouble."""
        over = (
            f" in {self.runs:,} runs with {self.tests:,} tests, {self.deaths:,} dead workers, {self.killed} killed runs"
        )
        if self.without_end_either:
            print(f"       workers: {self.without_end_either} runs did not end without the plugin either (xdist)")
        return [
            Check("workers: runs that were made", self.runs > 0 and self.deaths > 0, over.strip()),
            *(checks.nothing_left(f"workers: {kind}", found, over) for kind, found in self.left.items()),
        ]


class Loop:
    """The runs of a seed.

    Args:
        folder: for the tests and for temporary files.
        seed: what the runs are drawn from.
        mark: what their processes bear.
    """

    def __init__(self, folder: Path, seed: int, mark: str) -> None:
        self._folder = folder
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        self._seed = seed
        self._mark = mark
        self.troubles = Troubles()

    def run(self, number: int) -> None:
        """Make the run of a number, and look at what it leaves."""
        plan = plans.draw(self._seed, number)
        ended = self.start(plan)
        if plan.killed_after_seconds is None:
            self._judge(plan, ended, number)
            self.troubles.tests += len(plan.tests)
            self.troubles.deaths += plan.deaths
        if ended.status is None:
            # What a killed run leaves, the next one ends.
            self.troubles.killed += 1
            time.sleep(1.0)  # its workers see the end of their pipe
            self._judge(plans.calm(8), self.start(plans.calm(8)), number)
        self.troubles.runs += 1
        self._look(number)

    def start(self, plan: RunPlan, *, is_bare: bool = False) -> Ended:
        """Start a run and wait for its end; kill it where the plan says so, or where it has none."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            folder = Path(name)
            plans.write(plan, folder)
            notes, log = folder / "notes.json", folder / "log"
            begin = time.monotonic()
            with log.open("w") as out:
                process = subprocess.Popen(
                    [*_command(plan, is_bare=is_bare), "--basetemp", str(folder / "base"), str(folder)],
                    cwd=folder,
                    env={**clean_environment(self._temporary), "SOAK_MARK": self._mark, "SOAK_NOTES": str(notes)},
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                )
                status = self._wait(process, plan.killed_after_seconds)
            if is_bare:
                system.left_bearing(self._mark, within_seconds=0.0)  # nobody else ends what its tests leave
            found = json.loads(notes.read_text()) if notes.exists() else None
            return Ended(status, time.monotonic() - begin, found, log.read_text(errors="replace"))

    def _wait(self, process: subprocess.Popen[bytes], killed_after_seconds: float | None) -> int | None:
        try:
            return process.wait(killed_after_seconds if killed_after_seconds is not None else LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return None

    def _judge(self, plan: RunPlan, ended: Ended, number: int) -> None:
        troubles, notes = self.troubles, ended.notes
        if ended.status is None or notes is None:
            if self.start(plan, is_bare=True).status is None:
                troubles.without_end_either += 1  # xdist's own trouble: it is the same without the plugin
                return
            troubles.add("runs that did not end", number, [f"after {ended.seconds:.0f} s\n{ended.log[-2000:]}"])
            return
        planned = plan.outcomes()
        right = 1 if {*planned.values()} - {"passed"} else 0
        if ended.status != right:
            tail = ended.log[-1500:]
            troubles.add("wrong exit status", number, [f"{ended.status}, not {right}\n{tail}"])
        troubles.add("wrong outcomes", number, checks.outcomes_of_run(planned, notes["reports"]))
        bad = [line for line in ended.log.splitlines() if any(word in line for word in WORDS_OF_TROUBLE)]
        troubles.add("errors of pytest or of the plugin", number, bad)
        troubles.add("descriptors left open", number, notes["open_at_end"])
        troubles.add("threads left", number, notes["threads_at_end"])
        zombies = {child for child in notes["children_at_end"] if child.endswith("state Z)")}
        troubles.add("child processes left", number, {*notes["children_at_end"]} - zombies)
        if len(zombies) > MOST_ZOMBIES * (plan.workers + plan.deaths) + plan.daemons:
            troubles.add("zombies left", number, zombies)

    def _look(self, number: int) -> None:
        troubles = self.troubles
        troubles.add("processes left", number, system.left_bearing(self._mark, within_seconds=0.5))
        files = left_files(self._temporary)
        locks = {name for name in files if name.endswith(LOCK_SUFFIX)}
        troubles.add("lock files left", number, locks)
        troubles.add("temporary files left", number, files - locks)
        shared = system.shared_memory(self._mark)
        troubles.add("shared memory left", number, shared)
        for path in (system.SHARED_MEMORY / name for name in shared):  # told once
            path.unlink(missing_ok=True)
        for name in files:  # told once
            with contextlib.suppress(OSError):
                (self._temporary / name).unlink()


def run(seconds: float, seed: int, mark: str, only: int | None = None) -> Iterator[Check]:
    """Make runs until the time is over, then judge.

    Args:
        seconds: how long.
        seed: what they are drawn from.
        mark: what their processes bear.
        only: the one run to make; all by default.
    """
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        loop = Loop(Path(name), seed, mark)
        if only is not None:
            loop.run(only)
            yield from loop.troubles.checks()
            return
        until = time.monotonic() + seconds
        yield from _of_deaths(loop)
        before = _calm_ratios(loop)
        number = 0
        while time.monotonic() < until:
            loop.run(number)
            number += 1
        yield from loop.troubles.checks()
        yield checks.no_slower(before, _calm_ratios(loop))


def _of_deaths(loop: Loop) -> Iterator[Check]:
    plan = plans.of_deaths(DEATHS)
    ours, bare = loop.start(plan), loop.start(plan, is_bare=True)
    ours_deaths, bare_deaths = ((ended.notes or {}).get("deaths", []) for ended in (ours, bare))
    for what in ("descriptors", "threads"):
        of_ours, of_bare = ([death[what] for death in deaths] for deaths in (ours_deaths, bare_deaths))
        yield checks.growth_a_death(of_ours, of_bare, what)


def _calm_ratios(loop: Loop) -> list[float]:
    plan = plans.calm(CALM_TESTS)
    return [loop.start(plan).seconds / loop.start(plan, is_bare=True).seconds for _ in range(CALM_RUNS)]


def _command(plan: RunPlan, *, is_bare: bool) -> list[str]:
    return [
        *(sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider"),
        *("-p", "xdist", "-p", "benchmarks.soak.controller"),
        *("-n", str(plan.workers), "--dist", plan.distribution, "--max-worker-restart", "1000"),
        *(() if is_bare else (*PLUGIN, *plan.options)),
    ]
