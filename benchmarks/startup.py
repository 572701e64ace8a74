"""What the plugin costs where it is installed and not asked for."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest
from _pytest.config import _iter_rewritable_modules

from benchmarks.measure import PLUGIN, Extent, Row, Variant, above_bare, rounds_of, sessions, spread_us
from benchmarks.pace import Pace

BUDGET_MS = 2.0
TESTS = 220
"""Of a session; short ones in many rounds meet all moods of the machine."""
LOOPS = 9
"""How often the machine's pace is taken beside each pair of sessions."""
NOTHING_US = 5.0
"""What counts as nothing per test: on a busy machine the rounds differ by as much from each other."""


def run(extent: Extent) -> list[Row]:
    """Measure start-up in pairs, the import by itself, and what a test costs."""
    quick = extent.quick
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tests").mkdir()
        (Path(folder) / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        pairs = _pairs(folder, 100 if quick else 300)
        import_ms = _import_ms(folder)
    median = 1e3 * statistics.median(on - off for on, off in pairs)
    whole = 1e3 * statistics.median(off for _, off in pairs)
    files, list_ms = _list_of_files()
    both = {"bare": Variant(TESTS), "installed": Variant(TESTS, tuple(PLUGIN))}
    figures = sessions(both, body="empty", rounds=9 if quick else 25)
    group = "installed, not asked for"
    return [
        Row(
            group=group,
            what="start-up, median of the differences in pairs",
            measured=median,
            unit="ms",
            budget=BUDGET_MS,
            promise="start-up",
            spread=1e3 * statistics.median(abs(on - off - median / 1e3) for on, off in pairs),
            rounds={"start-up, on": tuple(on for on, _ in pairs), "start-up, off": tuple(off for _, off in pairs)},
            compared=f"{100 * median / whole:.1f} % of pytest's own ({whole:.0f} ms)",
        ),
        Row(group=group, what="of that, importing it (-X importtime)", measured=import_ms, unit="ms"),
        Row(
            group=group,
            what="beside that, in pytest: reading the list of its installed files, also where it is blocked",
            measured=list_ms,
            unit="ms",
            compared=f"{files} lines",
        ),
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


def _pairs(folder: str, count: int) -> list[tuple[float, float]]:
    """Give the CPU seconds of start-up with and without the plugin, all in one process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.startup", folder, str(count)],
        cwd=Path(__file__).parents[1],
        env=_environment(folder),
        capture_output=True,
        text=True,
        check=True,
    )
    return [(on, off) for on, off in json.loads(done.stdout)]


class _Started:
    """Stops the clock where the tests would begin: at its end pytest collects garbage, five times from 9.0 on."""

    def __init__(self) -> None:
        self.at_seconds = 0.0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Read it."""
        self.at_seconds = time.process_time()


def _start_up_seconds(arguments: list[str]) -> float:
    """Run a session that loads the plugin anew, and give the CPU time of its start-up."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "pytest_gpuclean"]:
        del sys.modules[name]
    gc.collect()
    gc.disable()
    started = _Started()
    begin = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main(arguments, plugins=[started])
    gc.enable()
    return started.at_seconds - begin


def _list_of_files() -> tuple[int, float]:
    """Say how many files are installed, and how long pytest takes to look through them for what it rewrites."""
    best = float("inf")
    for _ in range(20):
        begin = time.process_time()
        files = [str(file) for file in distribution("pytest-gpuclean").files or ()]
        list(_iter_rewritable_modules(files))
        best = min(best, time.process_time() - begin)
    return len(files), 1e3 * best


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


def main() -> None:
    """Print the seconds of pairs, as JSON."""
    folder, count = sys.argv[1], int(sys.argv[2])
    os.chdir(folder)
    others = [name for point in entry_points(group="pytest11") if (name := point.name) != "gpuclean"]
    arguments = ["-q", "-p", "no:cacheprovider", *(part for name in others for part in ("-p", f"no:{name}")), "tests"]
    without = ["-p", "no:gpuclean", *arguments]
    for warmed_up in (arguments, without):  # writes the bytecode that an installed package would have
        _start_up_seconds(warmed_up)
    pairs = []
    for _ in range(count):
        pair = (_start_up_seconds(arguments), _start_up_seconds(without))
        pace = Pace()  # of this very pair
        for _ in range(LOOPS):
            pace.note()
        pairs.append([pace.even(seconds) for seconds in pair])
    print(json.dumps(pairs))


if __name__ == "__main__":
    main()
