"""Starts the processes that measure, and makes figures of what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLUGIN = ["-p", "gpuclean"]


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

    @property
    def is_met(self) -> bool:
        """Whether it is within its budget."""
        return self.budget is None or self.measured <= self.budget


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of running the generated tests."""

    tests: int
    arguments: tuple[str, ...] = ()
    usual: bool = False
    """Whether every test has the fixture that suites write by hand."""


Figures = dict[str, list[dict[str, float]]]


def sessions(
    variants: Mapping[str, Variant],
    *,
    body: str,
    rounds: int,
    devices: int = 0,
    modules: int = 1,
    parametrized: bool = False,
) -> Figures:
    """Run variants in turns in one process where torch is imported, and return the figures of each run.

    Args:
        variants: by name.
        body: what each test does, a key of `session.BODIES`.
        rounds: how often each variant runs.
        devices: how many simulated devices are initialised.
        modules: over how many modules the tests are spread.
        parametrized: whether the tests are one function's parameters instead.
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
            "variants": {
                name: {"tests": v.tests, "arguments": list(v.arguments), "usual": v.usual}
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
    """Return by how many seconds a session takes longer than one without the plugin; the quickest of each counts.

    Args:
        figures: of `sessions`.
        name: the variant.
        bare: the variant that is subtracted; it ran as many tests.
        clock: `cpu_seconds`, which other programs disturb least, or `wall_seconds`; with `test_` in
            front, of the median test.
    """
    return min(run[clock] for run in figures[name]) - min(run[clock] for run in figures[bare])


def microseconds_a_test(figures: Figures, name: str, bare: str = "bare", clock: str = "cpu_seconds") -> float:
    """Return what a test costs above the same test without the plugin."""
    return 1e6 * above_bare(figures, name, bare, clock) / figures[name][0]["tests"]
