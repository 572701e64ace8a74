"""Who holds a card, and the wait for what is to come back."""

import getpass
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from pytest_gpuclean.cards import CardWatch, who_holds
from pytest_gpuclean.memory.card_users import is_in_namespace
from pytest_gpuclean.memory.cards import Card, CardUse, CardUser
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.units import GiB, MiB
from unit.fakepynvml import FakePynvml, Part, nvml_of

GONE = 4_100_001
"""No process has such a number on a machine that counts to 4,194,304 and has just begun."""


def card_with(*users, used=0):
    return FakePynvml(Part("GPU-a", used=used, users={"Compute": list(users)}))


def watch_of(module, seconds=5.0, **more):
    return CardWatch(nvml_of(module), Procfs(), settle_seconds=seconds, **more)


def left(pid, **more):
    return LeftProcess(pid=pid, name="python serve.py", command="python serve.py", **more)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_who_holds_a_card_is_said_with_command_and_user_the_largest_first():
    if is_in_namespace():
        pytest.skip("process numbers of a container")
    child = subprocess.Popen(["sleep", "100"])
    try:
        users = [CardUser(pid=child.pid, used_bytes=20 * GiB), CardUser(pid=1, used_bytes=None)]
        users += [CardUser(pid=GONE, used_bytes=30 * GiB)]
        found = who_holds(CardUse(card=Card(index=0), users=tuple(users)), Procfs())
    finally:
        child.kill()
        child.wait()
    assert found[:2] == (f"pid {GONE}: 30.0 GiB", f"pid {child.pid} sleep (user {getpass.getuser()}): 20.0 GiB")
    assert found[2].startswith("pid 1 ")
    assert found[2].endswith(": the driver does not say how much")


def test_nobody_is_named_where_nobody_is_listed():
    assert who_holds(CardUse(card=Card(index=0), users=Unavailable("nvml", "lost")), Procfs()) == ()


def test_what_a_process_held_is_judged_against_the_threshold_together_with_the_others():
    watch = watch_of(card_with((11, 3 * MiB), (12, 2 * MiB), (13, None), (14, GiB)))
    assert watch.bytes_of([11, 12, 13]) == {11: 3 * MiB, 12: 2 * MiB, 13: None}
    processes = [left(pid, started_by="t") for pid in (11, 12, 13)]
    (leak,) = watch.leaks("t", 4 * MiB, processes)
    assert (leak.kind, leak.device, leak.source, leak.leaked_bytes) == ("test", "cuda:0", "nvml", 5 * MiB)
    assert leak.children == "2 child processes (pid 11, python serve.py; pid 12, python serve.py)"
    assert list(watch.leaks("t", 5 * MiB, processes)) == []
    assert [leak.leaked_bytes for leak in watch.leaks("t", MiB, processes[:1])] == [3 * MiB]


def test_what_was_asked_before_is_not_held_against_the_next_test():
    module = card_with((11, GiB))
    watch = watch_of(module)
    watch.bytes_of([11])
    module.errors["nvmlDeviceGetCount"] = 15
    assert watch.bytes_of([11]) == {}
    assert list(watch.leaks("t", 1, [left(11)])) == []
    assert watch.settle([11]) == []


def test_nothing_is_asked_where_nothing_of_ours_held_memory():
    module = card_with((9, GiB), used=2 * GiB)
    watch = watch_of(module)
    assert watch.settle([9]) == []
    assert module.calls == []
    watch.bytes_of([5])
    calls = len(module.calls)
    assert watch.settle([5]) == []
    assert len(module.calls) == calls


@pytest.mark.parametrize(
    ("change", "gaps"),
    [
        (lambda module: module.errors.update(nvmlInit=12), []),  # no driver is no trouble
        (lambda module: module.errors.update(nvmlInit=9), ["nvmlInit failed: Driver Not Loaded (NVML error 9)"]),
        (
            lambda module: module.parts[0].users.clear(),
            ["the driver lists no process on cuda:0, where memory is in use"],
        ),
        (lambda module: None, []),
    ],
)
def test_what_could_not_be_read_is_told_once_asked_and_where_there_is_a_driver(change, gaps):
    module, told = card_with((11, GiB), used=GiB), []
    change(module)
    watch = watch_of(module, on_gap=told.append)
    assert told == []
    watch.bytes_of([11])
    assert told == gaps


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3])
def test_the_wait_ends_when_the_memory_is_back(seconds):
    module = card_with((11, GiB), (9, GiB), used=2 * GiB)
    watch = watch_of(module)
    watch.bytes_of([11])
    module.parts[0].users["Compute"] = [(9, GiB)]  # off the list, and not freed yet
    back = []

    def free():
        module.parts[0].used = GiB
        back.append(time.monotonic())

    timer = threading.Timer(seconds, free)
    timer.start()
    assert watch.settle([11]) == []
    assert back and time.monotonic() - back[0] < 2.5, "it waited for the bound"
    timer.join()


def test_at_the_bound_it_says_what_is_missing_and_who_uses_the_card():
    told = []
    module = card_with((11, GiB), (os.getpid(), GiB), used=2 * GiB)
    watch = watch_of(module, 1.2, on_wait=told.append)
    watch.bytes_of([11])
    module.parts[0].users["Compute"] = [(os.getpid(), GiB)]
    (problem,) = watch.settle([11])
    assert re.match(r"GPU memory of processes that have ended is not back after \d+\.\d+ s: ", problem)
    assert f"1.0 GiB on cuda:0, where pid {os.getpid()} " in problem
    assert told == ["the GPU memory of processes that have ended"]


def test_a_driver_that_fails_meanwhile_ends_the_wait():
    module = card_with((11, GiB), used=2 * GiB)
    watch = watch_of(module, 20.0)
    watch.bytes_of([11])
    threading.Timer(0.1, lambda: module.errors.update(nvmlDeviceGetHandleByIndex=15)).start()
    begin = time.monotonic()
    assert watch.settle([11]) == []
    assert time.monotonic() - begin < 5
