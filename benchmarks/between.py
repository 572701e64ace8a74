"""`python -m benchmarks between`: what the end of a run costs in a script, where the memory is back at once.

The scripts that this replaces sleep at that place, 5 to 30 seconds.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from benchmarks.measure import ROOT, Extent, Row
from benchmarks.pace import Pace

BUDGET_MS = 50.0
SLEPT_MS = {"quick": 5_000.0, "comprehensive": 10_000.0}
"""What the shortest wait of the scripts was."""
_COLLECTING = "of that, one gc.collect() of what torch keeps on the heap"
"""What a comprehensive cleanup is there for, and takes longer the more there is: its budget is for the rest."""
PLACES = {"simgpu:0": "2 simulated devices", "cpu": "host memory"}


def run(extent: Extent) -> Iterator[Row]:
    """Measure in a process of its own for each place, torch imported."""
    rounds = 5 if extent.quick else 15
    for device, place in PLACES.items():
        figures = _inside(device, rounds)
        collecting = figures.pop(_COLLECTING)
        for what, seconds in figures.items():
            level = "comprehensive" if "comprehensive" in what else "quick"
            measured = 1e3 * min(seconds)
            yield Row(
                group=f"between the runs of a script; {place}",
                what=what,
                measured=measured,
                unit="ms",
                budget=BUDGET_MS + (1e3 * min(collecting) if level == "comprehensive" else 0.0),
                promise="between runs",
                spread=_spread_ms(seconds),
                compared=f"1/{SLEPT_MS[level] / measured:.0f} of a sleep of {SLEPT_MS[level] / 1e3:.0f} s",
                rounds={f"{what}; {place}": tuple(seconds)},
            )
        yield Row(
            group=f"between the runs of a script; {place}",
            what=_COLLECTING,
            measured=1e3 * min(collecting),
            unit="ms",
            spread=_spread_ms(collecting),
        )


def _spread_ms(seconds: list[float]) -> float:
    middle = statistics.median(seconds)
    return 1e3 * statistics.median(abs(each - middle) for each in seconds)


def _inside(device: str, rounds: int) -> dict[str, list[float]]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.between", device, str(rounds)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "CUDA_VISIBLE_DEVICES": "",
            "GPUCLEAN_SIMGPU_DEVICES": "2",
        },
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: dict[str, list[float]] = json.loads(done.stdout)
    return figures


def _measure(device: str, rounds: int) -> dict[str, list[float]]:
    import torch

    if device != "cpu":
        import simgpu

        simgpu.load()
        torch.simgpu.init()
    from pytest_gpuclean import cleanup_between_runs, watch

    def train() -> None:
        layers = [torch.zeros(1 << 20, device=device) for _ in range(16)]
        layers.clear()

    def watched(does: Callable[[], None]) -> float:
        with watch(verbose=False):
            does()
            begin = time.perf_counter()
        return time.perf_counter() - begin

    def cleaned(does: Callable[[], None], *, comprehensive: bool) -> float:
        does()
        begin = time.perf_counter()
        cleanup_between_runs(0, 2, comprehensive=comprehensive, verbose=False)
        return time.perf_counter() - begin

    def collected() -> float:
        train()
        begin = time.perf_counter()
        gc.collect()
        return time.perf_counter() - begin

    measured: dict[str, Callable[[], float]] = {
        "the end of a watch(), nothing used": lambda: watched(lambda: None),
        "the end of a watch(), 64 MiB used and freed": lambda: watched(train),
        "cleanup_between_runs(), quick, 64 MiB used and freed": lambda: cleaned(train, comprehensive=False),
        "cleanup_between_runs(), comprehensive, 64 MiB used and freed": lambda: cleaned(train, comprehensive=True),
        _COLLECTING: collected,
    }
    figures: dict[str, list[float]] = {what: [] for what in measured}
    pace = Pace()
    for _ in range(rounds):
        for what, measure in measured.items():
            figures[what].append(measure())
            pace.note()
    return {what: list(map(pace.even, seconds)) for what, seconds in figures.items()}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]))))
