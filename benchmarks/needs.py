"""`python -m benchmarks needs`: what a test's needs and the assignment of GPUs cost, with cards that answer at once."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

from benchmarks.measure import Extent, Row
from pytest_gpuclean.memory.assignable import assignable
from pytest_gpuclean.memory.cards import Card
from pytest_gpuclean.memory.cuda_visible import Visible
from pytest_gpuclean.memory.initialised import InitTrace, initialised_devices
from pytest_gpuclean.memory.need import Need
from pytest_gpuclean.memory.visible_cards import VisibleCards
from pytest_gpuclean.plugin.assign import deal
from pytest_gpuclean.plugin.requirements import Requirements
from pytest_gpuclean.processes.device_locks import DeviceLocks
from pytest_gpuclean.units import GiB

CARDS = tuple(
    Card(
        index=index,
        uuid=f"GPU-{index}",
        name="Card",
        device=f"cuda:{index}",
        total_bytes=80 * GiB,
        used_bytes=0,
        free_bytes=80 * GiB,
    )
    for index in range(8)
)


class Driver:
    """Says at once that there are eight cards."""

    def visibility(self) -> Visible:
        return Visible(cards=CARDS)


def run(extent: Extent) -> Iterator[Row]:
    """Measure a requirement that is met, a lock that is free, the assignment, and the look for initialised devices."""
    quick = extent.quick
    rounds = 200 if quick else 2000
    requirements = Requirements(VisibleCards(Driver(), {}), 0, lambda _: (), print)
    need = Need(count=2, memory_bytes=20 * GiB, free_bytes=8 * GiB)
    yield _row("a requirement that is met, beside the driver's time, 8 cards", lambda: requirements.unmet(need), rounds)
    with tempfile.TemporaryDirectory() as folder:
        locks = DeviceLocks(folder, [("a", "a")], print)
        yield _row("a device that is free, locked and let go", lambda: _lock(locks), rounds)
    workers = [f"gw{number}" for number in range(16)]
    yield _row(
        "assignment: 16 workers over 8 cards, once a run",
        lambda: deal(workers, assignable(CARDS, {"CUDA_VISIBLE_DEVICES": "7,6,5,4,3,2,1,0"}).gpus),
        rounds,
    )
    import torch  # noqa: F401  as a run has it that uses a GPU

    trace = InitTrace(os.getcwd())
    trace.begin()
    yield _row("--gpu-init: a look, once a collected file, torch imported", initialised_devices, rounds)
    yield _row("--gpu-init: one import more, torch imported", lambda: trace.find_spec("name"), rounds)
    trace.end()


def _lock(locks: DeviceLocks) -> None:
    locks.take("test", 0)
    locks.release()


def _row(what: str, does: Callable[[], object], rounds: int) -> Row:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        does()
        times.append(time.perf_counter() - begin)
    return Row(group="what a test needs", what=what, measured=1e6 * statistics.median(times), unit="µs")
