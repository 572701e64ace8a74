"""What the plugin costs where it is installed and not asked for."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

from benchmarks.measure import PLUGIN, Extent, Row, Variant, above_bare, rounds_of, sessions, spread_us

BUDGET_MS = 2.0
NOTHING_US = 5.0
"""What counts as nothing per test: on a busy machine the rounds differ by as much from each other."""


def run(extent: Extent) -> list[Row]:
    """Measure start-up in pairs of processes, the import by itself, and what a test costs."""
    quick = extent.quick
    others = [name for point in entry_points(group="pytest11") if (name := point.name) != "gpuclean"]
    blocked = [argument for name in others for argument in ("-p", f"no:{name}")]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tests").mkdir()
        _cpu_seconds(blocked, folder)  # writes the bytecode that an installed package would have
        _cpu_seconds([*blocked, "-p", "no:gpuclean"], folder)
        pairs = []
        for _ in range(10 if quick else 40):
            on = _cpu_seconds(blocked, folder)
            off = _cpu_seconds([*blocked, "-p", "no:gpuclean"], folder)
            pairs.append((on, off))
        import_ms = _import_ms(folder)
    median = 1e3 * statistics.median(on - off for on, off in pairs)
    least = 1e3 * (min(on for on, _ in pairs) - min(off for _, off in pairs))
    whole = 1e3 * min(off for _, off in pairs)
    tests = 500 if quick else 2000
    figures = sessions(
        {"bare": Variant(tests), "installed": Variant(tests, tuple(PLUGIN))}, body="empty", rounds=3 if quick else 5
    )
    group = "installed, not asked for"
    return [
        Row(
            group=group,
            what="start-up, median of the differences of paired processes",
            measured=median,
            unit="ms",
            budget=BUDGET_MS,
            promise="start-up",
            spread=1e3 * statistics.median(abs(on - off - median / 1e3) for on, off in pairs),
            rounds={"start-up, on": tuple(on for on, _ in pairs), "start-up, off": tuple(off for _, off in pairs)},
            compared=f"{100 * median / whole:.1f} % of pytest's own start ({whole:.0f} ms)",
        ),
        Row(
            group=group,
            what="start-up, difference of the quickest",
            measured=least,
            unit="ms",
            budget=BUDGET_MS,
            promise="start-up",
        ),
        Row(group=group, what="of that, importing it (-X importtime)", measured=import_ms, unit="ms"),
        Row(
            group=group,
            what="a test",
            measured=1e6 * above_bare(figures, "installed", clock="test_cpu_seconds"),
            unit="µs",
            budget=NOTHING_US,
            promise="not asked for",
            spread=spread_us(figures, "installed", clock="test_cpu_seconds"),
            rounds=rounds_of(figures, "installed", "bare", clock="test_cpu_seconds", where=group),
        ),
    ]


def _cpu_seconds(arguments: list[str], folder: str) -> float:
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(Path(folder) / "tests")],
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime


def _environment(folder: str) -> dict[str, str]:
    """Let bytecode be written, and beside the sources it would litter."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(Path(folder) / "bytecode")}


def _import_ms(folder: str) -> float:
    line = re.compile(r"import time:\s*\d+ \|\s*(\d+) \|\s+(\S+)")
    best = float("inf")
    for _ in range(10):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", "import pytest; import pytest_gpuclean.plugin"],
            env=_environment(folder),
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        taken = {match[2]: int(match[1]) for match in line.finditer(done.stderr)}
        best = min(best, (taken["pytest_gpuclean"] + taken["pytest_gpuclean.plugin"]) / 1e3)
    return best
