"""Starts the processes that measure, and makes figures of what they say.

No library does this part: pyperf and pytest-benchmark time one function after the other, so that a slow minute of the
machine falls on one of them. What is compared here are whole sessions of pytest, with and without the plugin; they run
in turns, round by round in one process, and a figure is the difference between them. pyperf does the rest: it keeps the
seconds of each round in `benchmarks/results/runs.json`, with the machine that they were taken on, says whether they are
stable (`python -m pyperf check`), and compares them with those of another time (`python -m pyperf compare_to`).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLUGIN = ["-p", "gpuclean"]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    quick: bool = False
    """A few rounds, in minutes."""
    long: bool = False
    """The long ends of the curves too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a figure stands in the plot."""

    panel: str
    line: str
    x: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure, with its budget where it has one."""

    group: str
    what: str
    measured: float
    unit: str
    budget: float | None = None
    compared: str = ""
    """The same in proportion to what it is compared to."""
    promise: str = ""
    """Which of the promised budgets it is one of, by its name in `budgets.PROMISES`."""
    spread: float | None = None
    """By how much it differs from round to round: the median absolute deviation."""
    point: Point | None = None
    rounds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The seconds of each round that it was made of, by what ran."""

    @property
    def is_met(self) -> bool:
        """Whether it is within its budget."""
        return self.budget is None or self.measured <= self.budget


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of running the generated tests."""

    tests: int
    arguments: tuple[str, ...] = ()
    by_hand: str = ""
    """What every test has instead of the plugin, a key of `session.BY_HAND`."""


Figures = dict[str, list[dict[str, float]]]


def sessions(
    variants: Mapping[str, Variant],
    *,
    body: str,
    rounds: int,
    devices: int = 0,
    modules: int = 1,
    parametrized: bool = False,
    heap_objects: int = 0,
) -> Figures:
    """Run variants in turns in one process where torch is imported, and return the figures of each run.

    Args:
        variants: by name.
        body: what each test does, a key of `session.BODIES`.
        rounds: how often each variant runs.
        devices: how many simulated devices are initialised.
        modules: over how many modules the tests are spread.
        parametrized: whether the tests are one function's parameters instead.
        heap_objects: how many objects there are beside those of pytest, torch and the tests.
    """
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "GPUCLEAN_SIMGPU_DEVICES": str(max(1, devices)),
        "CUDA_VISIBLE_DEVICES": "",
    }
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        plan = {
            "folder": folder,
            "log": str(log),
            "body": body,
            "rounds": rounds,
            "devices": devices,
            "modules": modules,
            "parametrized": parametrized,
            "heap_objects": heap_objects,
            "variants": {
                name: {"tests": v.tests, "arguments": list(v.arguments), "by_hand": v.by_hand}
                for name, v in variants.items()
            },
        }
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.session", json.dumps(plan)],
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"the sessions failed:\n{log.read_text()[-3000:]}")
        figures: Figures = json.loads(done.stdout)
    return figures


def above_bare(figures: Figures, name: str, bare: str = "bare", clock: str = "cpu_seconds") -> float:
    """Return by how many seconds a session, or its median test, takes longer than without the plugin, by their medians.

    Args:
        figures: of `sessions`.
        name: the variant.
        bare: the variant that is subtracted; it ran as many tests.
        clock: `cpu_seconds`, which other programs disturb least, or `wall_seconds`; with `test_` in
            front, of the median test.
    """
    return statistics.median(run[clock] for run in figures[name]) - statistics.median(
        run[clock] for run in figures[bare]
    )


def spread_us(figures: Figures, name: str, bare: str = "bare", clock: str = "cpu_seconds", per: int = 1) -> float:
    """Return by how much the difference of two variants differs from round to round, in microseconds.

    Args:
        figures: of `sessions`.
        name: the variant.
        bare: the variant that is subtracted.
        clock: as for `above_bare`.
        per: how many tests it is divided by.
    """
    pairs = zip(figures[name], figures[bare], strict=True)
    differences = [1e6 * (run[clock] - without[clock]) / per for run, without in pairs]
    middle = statistics.median(differences)
    return statistics.median(abs(difference - middle) for difference in differences)


def rounds_of(
    figures: Figures, *names: str, clock: str = "cpu_seconds", where: str = ""
) -> dict[str, tuple[float, ...]]:
    """Return the seconds of each round of some variants, for pyperf.

    Args:
        figures: of `sessions`.
        names: of the variants.
        clock: as for `above_bare`.
        where: what tells these variants from those of the same names elsewhere.
    """
    return {f"{where}: {name}" if where else name: tuple(run[clock] for run in figures[name]) for name in names}
