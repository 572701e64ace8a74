"""Runs pytest sessions over generated tests, in turns, in one process; its parent reads the times from its output.

Started by `measure.sessions`; it says its plan as JSON on the command line.
"""

from __future__ import annotations

import gc
import json
import operator
import os
import statistics
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pace import LOOP_SECONDS, loop_seconds

BODIES = {
    "empty": "    pass",
    "counted": "    work = torch.empty(4 << 20, dtype=torch.uint8, device=DEVICE)\n    del work",
    "cycle": ("    cycle = [torch.empty(4 << 20, dtype=torch.uint8, device=DEVICE)]\n    cycle.append(cycle)"),
}
"""What a generated test does: nothing, allocate and free by reference counting, leave a garbage cycle."""


class Stopwatch:
    """Times the loop over the tests alone, without start-up and collection, and each test in it."""

    def __init__(self) -> None:
        self.wall_seconds = 0.0
        self.cpu_seconds = 0.0
        self.rss_bytes = 0
        self._tests: list[tuple[float, float, float]] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Time it."""
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        result = yield
        self.wall_seconds, self.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        gc.collect()
        self.rss_bytes = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        """Time one test, and right after it a loop that always does the same."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = yield
        self._tests.append((time.perf_counter() - wall, time.process_time() - cpu, loop_seconds()))
        return result

    def figures(self) -> dict[str, float]:
        """Give everything that was measured, by name: seconds as `benchmarks.pace` tells them."""
        wall, cpu, loops = zip(*self._tests, strict=True)
        evenly = LOOP_SECONDS / statistics.median(loops)
        return {
            "wall_seconds": self.wall_seconds * evenly,
            "cpu_seconds": self.cpu_seconds * evenly,
            "rss_bytes": self.rss_bytes,
            "test_wall_seconds": LOOP_SECONDS * statistics.median(map(operator.truediv, wall, loops)),
            "test_cpu_seconds": LOOP_SECONDS * statistics.median(map(operator.truediv, cpu, loops)),
        }


class NoFixture:
    """Nothing beside the tests."""


class UsualFixture:
    """What suites write by hand, and what the plugin is compared to."""

    @pytest.fixture(autouse=True)
    def _give_back(self) -> Generator[None, None, None]:
        yield
        import torch

        gc.collect()
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class ProcessFixture:
    """What suites write by hand where tests leave processes: a walk over all that run, by their command lines."""

    @pytest.fixture(autouse=True)
    def _stop_left(self) -> Generator[None, None, None]:
        yield
        import psutil

        for process in psutil.process_iter(["pid", "name", "cmdline"]):
            words = process.info["cmdline"] or [process.info["name"]]
            if any(name in word for word in words for name in LEFT_PROCESSES):
                raise AssertionError(f"{words} is not to run here: nothing is stopped in a measurement")


class MemoryLimit:
    """A limit on the memory of each test, which is what pytest-memray judges."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Give each test the limit."""
        for item in items:
            item.add_marker(pytest.mark.limit_memory("4 GB"))


BY_HAND: dict[str, type] = {"": NoFixture, "usual": UsualFixture, "psutil": ProcessFixture, "memray": MemoryLimit}
"""What stands beside the tests instead of the plugin."""
LEFT_PROCESSES = ("a-leaked-tensorboard", "a-leaked-ros2-launch")


class Filling:
    """An object of a large heap, with three containers: four that the collector knows."""

    def __init__(self, number: int) -> None:
        self.value = [number]
        self.more = {"key": (self.value,)}


def fill_heap(objects: int) -> list[Filling]:
    """Make so many objects that the garbage collector knows."""
    return [Filling(number) for number in range(objects // 4)]


def write_tests(folder: Path, body: str, tests: int, modules: int, device: str) -> list[str]:
    """Write modules of tests, and return pytest's arguments for them."""
    paths = []
    for number in range(modules):
        lines = ["import torch", f"DEVICE = {device!r}"] if body != "empty" else []
        for test in range(number, tests, modules):
            lines += [f"def test_{test}():", BODIES[body]]
        path = folder / f"test_{body}_{tests}_{modules}_{number}.py"
        path.write_text("\n".join(lines) + "\n")
        paths.append(str(path))
    return paths


def write_parametrized(folder: Path, body: str, tests: int, device: str) -> list[str]:
    """Write one function with that many parameters, which is the quickest to collect."""
    path = folder / f"test_{body}_{tests}.py"
    path.write_text(
        f"import pytest, torch\nDEVICE = {device!r}\n"
        f"@pytest.mark.parametrize('number', range({tests}))\ndef test(number):\n{BODIES[body]}\n"
    )
    return [str(path)]


def run_session(arguments: list[str], by_hand: str) -> Stopwatch:
    """Run one session, and say how long its loop took."""
    watch = Stopwatch()
    plugins: list[Any] = [watch, BY_HAND[by_hand]()]
    # pytest's logging plugin visits each of torch's loggers three times a test, 0.7 ms that vary more than what is
    # measured here; a session with it and one without the plugin would pay it alike.
    status = pytest.main([*arguments, "-q", "-p", "no:cacheprovider", "-p", "no:logging"], plugins=plugins)
    if status != 0:
        raise SystemExit(f"a session ended with {status!r}: {arguments}")
    return watch


def main() -> None:
    """Run what the plan says, and print the figures of every run as JSON."""
    plan = json.loads(sys.argv[1])
    out = os.fdopen(os.dup(1), "w")
    log = os.open(plan["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)

    import torch

    device = "cpu"
    if plan["devices"]:
        import simgpu

        simgpu.load()
        torch.simgpu.init()
        device = "simgpu:0"
    folder = Path(plan["folder"])
    (folder / "pytest.ini").write_text("[pytest]\n")
    kept = fill_heap(plan["heap_objects"])
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in plan["variants"]}
    for _ in range(plan["rounds"]):
        for name, variant in plan["variants"].items():
            if plan["parametrized"]:
                paths = write_parametrized(folder, plan["body"], variant["tests"], device)
            else:
                paths = write_tests(folder, plan["body"], variant["tests"], plan["modules"], device)
            watch = run_session([*variant["arguments"], *paths], variant["by_hand"])
            figures[name].append({**watch.figures(), "tests": variant["tests"]})
    json.dump(figures, out)
    out.close()
    del kept


if __name__ == "__main__":
    main()
