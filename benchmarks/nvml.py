"""`python -m benchmarks nvml`: what asking the driver costs beside its own time, and how soon a wait ends.

The driver is a stand-in that answers at once, so all that is measured is ours. The bare calls beside it are the same
functions in the same order, called by hand.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator

from benchmarks.measure import ROOT, Extent, Row
from benchmarks.pace import Pace
from pytest_gpuclean.cards import CardWatch
from pytest_gpuclean.memory.nvml import Nvml
from pytest_gpuclean.memory.nvml_calls import NoDriverError, NvmlCalls
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.units import GiB

sys.path.insert(0, str(ROOT / "tests"))

from unit.fakepynvml import FakePynvml, Part

READ_BUDGET_US = 100.0
SETTLE_BUDGET_MS = 20.0
OWN_PID, OTHER_PID = 4_100_001, 4_100_002


def run(extent: Extent) -> Iterator[Row]:
    """Measure the reads on one card and on eight, the ask where there is no driver, and the wait."""
    quick = extent.quick
    rounds = 1000 if quick else 3000
    for count in (1, 8):
        yield from _reads(count, rounds)
    yield _without_driver(rounds)
    yield from _settle(rounds=5 if quick else 30)


def _reads(count: int, rounds: int) -> Iterator[Row]:
    module = _machine(count)
    nvml = Nvml(NvmlCalls(lambda: module))
    nvml.devices()
    first = nvml.devices()
    assert isinstance(first, tuple)
    for what, ask in (("what every card has", nvml.devices), ("every card and its users", nvml.use)):
        module.calls.clear()
        ask()
        bare = _bare(module, list(module.calls))
        whole, by_hand = _in_turns(ask, bare, rounds)
        yield Row(
            group="the driver: one question",
            what=f"{what}, {count} card{'s' * (count > 1)}: ours beside the calls",
            measured=1e6 * (whole - by_hand),
            unit="µs",
            budget=READ_BUDGET_US * count,
            compared=f"{whole / by_hand:.1f} of the bare calls ({1e6 * by_hand:.0f} µs)",
        )


def _machine(count: int) -> FakePynvml:
    users: dict[str, list[tuple[int, int | None]]] = {"Compute": [(OWN_PID, GiB), (OTHER_PID, GiB)]}
    module = FakePynvml(*(Part(f"GPU-{index}", used=2 * GiB, users=users) for index in range(count)))
    module.calls = _Forgetful()
    return module


class _Forgetful(list[str]):
    """A list of calls that does not grow over many rounds."""

    def append(self, name: str) -> None:
        if len(self) < 1000:
            super().append(name)


def _bare(module: FakePynvml, names: list[str]) -> Callable[[], None]:
    part = module.parts[0]
    arguments = {"nvmlDeviceGetCount": (), "nvmlDeviceGetHandleByIndex": (0,)}

    def call_by_hand() -> None:
        for name in names:
            with contextlib.suppress(Exception):  # no MIG: the answer is an error, as the real one's is
                getattr(module, name)(*arguments.get(name, (part,)))

    return call_by_hand


def _in_turns(ours: Callable[[], object], bare: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Give the time of each, measured in turns; the quickest tenth counts, which other programs disturb least."""
    seconds: tuple[list[float], list[float]] = ([], [])
    pace = Pace()
    for _ in range(rounds):
        for does, times in zip((ours, bare), seconds, strict=True):
            begin = time.perf_counter()
            does()
            times.append(time.perf_counter() - begin)
        pace.note()
    ours_seconds, bare_seconds = (statistics.mean(sorted(times)[: max(1, rounds // 10)]) for times in seconds)
    return pace.even(ours_seconds), pace.even(bare_seconds)


def _without_driver(rounds: int) -> Row:
    def load() -> None:
        raise NoDriverError

    nvml = Nvml(NvmlCalls(load))
    nvml.devices()
    begin = time.perf_counter()
    for _ in range(rounds):
        nvml.devices()
    seconds = (time.perf_counter() - begin) / rounds
    return Row(
        group="the driver: one question",
        what="no driver: every ask after the first",
        measured=1e6 * seconds,
        unit="µs",
        budget=10.0,
    )


def _settle(rounds: int) -> Iterator[Row]:
    late = [_late_seconds(0.003 + 0.5 * number / rounds) for number in range(rounds)]
    group = "the driver: waiting for memory of an ended process"
    by_hand = "a poll each 5 s, as suites write it, is 2,500 ms late on average"
    yield Row(
        group=group,
        what="from the moment it is back, worst",
        measured=1e3 * max(late),
        unit="ms",
        budget=SETTLE_BUDGET_MS,
        compared=by_hand,
    )
    yield Row(group=group, what="from the moment it is back, median", measured=1e3 * statistics.median(late), unit="ms")


def _late_seconds(after_seconds: float) -> float:
    """Let memory come back after a while; return by how much the wait ends later than that."""
    module = _machine(1)
    watch = CardWatch(Nvml(NvmlCalls(lambda: module)), Procfs())
    watch.bytes_of([OWN_PID])
    part = module.parts[0]
    part.users = {"Compute": [(OTHER_PID, GiB)]}
    back: list[float] = []

    def free() -> None:
        part.used = GiB
        back.append(time.perf_counter())

    timer = threading.Timer(after_seconds, free)
    timer.start()
    problems = watch.settle([OWN_PID])
    end = time.perf_counter()
    timer.join()
    assert not problems
    return end - back[0]
