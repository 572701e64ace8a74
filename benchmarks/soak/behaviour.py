"""What the tests of the long run do. Importing this makes the simulated accelerator torch's own."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import simgpu
import torch

from benchmarks.soak.kinds import LEFT_ALONE, kind_of

simgpu.load()
torch.simgpu.init()
DEVICE = "simgpu:0"
MiB = 1024 * 1024
KEPT: list[Any] = []


def tensor(mib: int) -> torch.Tensor:
    """Take memory of the simulated device."""
    return torch.empty(mib * MiB, dtype=torch.uint8, device=DEVICE)


def behave(number: int) -> None:
    """Be the test of a number."""
    if KEPT:
        KEPT.clear()
    kind = kind_of(number)
    if kind == "nothing" or (kind in LEFT_ALONE and os.environ.get("SOAK_BARE")):
        return
    DOES[kind]()


def _count() -> None:
    work = tensor(4)
    del work


def _cycle() -> None:
    cycle: list[Any] = [tensor(4)]
    cycle.append(cycle)


def _fail() -> None:
    work = tensor(4)
    raise AssertionError(f"planned, with {work.nbytes} bytes in its frame")


def _leave_thread() -> None:
    work = tensor(2)
    threading.Thread(target=lambda kept: time.sleep(0.02), args=(work,)).start()


def _leave_process() -> None:
    # Kept until the next test, which lets its end be asked for: a zombie costs each test after it a look.
    KEPT.append(subprocess.Popen(["sleep", "600"]))


DOES: dict[str, Callable[[], object]] = {
    "counted": _count,
    "cycle": _cycle,
    "fixture": lambda: None,
    "failure": _fail,
    "thread": _leave_thread,
    "process": _leave_process,
    "leak": lambda: KEPT.append(tensor(2)),
}
