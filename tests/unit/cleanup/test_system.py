"""The kernel's caches and the GPUs: done where it is possible, and refused with the reason where it is not."""

import os
import threading
from pathlib import Path

import pytest

from pytest_gpuclean.cleanup.interface import Occasion, RefusedError, Skip
from pytest_gpuclean.cleanup.nvidia_smi import NvidiaSmi
from pytest_gpuclean.cleanup.runner import run_cleanup
from pytest_gpuclean.cleanup.system import DropCachesCleaner, GpuResetCleaner, SystemCleaners
from unit.cleanup.fakesmi import FakeSmi

OCCASION = Occasion(level="comprehensive")


class Step:
    """A cleaner that does what it is told."""

    def __init__(self, name="caches", outcome="device cache"):
        self.name, self.outcome, self.calls = name, outcome, 0

    def clean(self, occasion):
        self.calls += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


# -- drop-caches ------------------------------------------------------------------------------------------------


def test_what_has_changed_is_written_to_disk_before_the_caches_are_dropped(tmp_path):
    kernel = tmp_path / "drop_caches"
    kernel.write_bytes(b"")
    seen = []
    done = DropCachesCleaner(os.fspath(kernel), lambda: seen.append(kernel.read_bytes())).clean(OCCASION)
    assert seen == [b""]
    assert kernel.read_bytes() == b"3\n"
    assert done == "the kernel's caches of files and folders"


def test_a_file_that_is_not_there_is_never_made(tmp_path):
    missing = tmp_path / "drop_caches"
    synced = []
    with pytest.raises(RefusedError, match="it is not there: this needs Linux"):
        DropCachesCleaner(os.fspath(missing), lambda: synced.append(1)).clean(OCCASION)
    assert not missing.exists()
    assert synced == [], "a sync costs seconds, and would be for nothing"


def test_a_link_is_not_followed(tmp_path):
    target, link = tmp_path / "mine", tmp_path / "drop_caches"
    target.write_text("all my work")
    link.symlink_to(target)
    with pytest.raises(RefusedError):
        DropCachesCleaner(os.fspath(link), lambda: None).clean(OCCASION)
    assert target.read_text() == "all my work"


def test_without_the_right_to_it_the_reason_is_told():
    # Whoever runs this: in a child process that is nobody. The kernel's own file, which it may not even open.
    if os.geteuid() != 0:
        pytest.skip("to become another user takes root")
    read_end, write_end = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setresgid(12345, 12345, 12345)
            os.setresuid(12345, 12345, 12345)
            step = run_cleanup([DropCachesCleaner(sync=lambda: None)], OCCASION, {}, dict).steps[0]
            os.write(write_end, f"{step.status}|{step.detail}".encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read_end) as pipe:
        status, _, detail = pipe.read().partition("|")
    assert status == "failed"
    if "read-only" not in detail:  # as containers have it
        assert detail == "/proc/sys/vm/drop_caches: this needs root (this process runs as uid 12345)"


def test_disks_that_do_not_answer_hold_nobody_up(tmp_path):
    kernel = tmp_path / "drop_caches"
    kernel.write_bytes(b"")
    answer = threading.Event()
    try:
        with pytest.raises(RefusedError, match="the disks have not taken in what has changed within 50 ms"):
            DropCachesCleaner(os.fspath(kernel), answer.wait, sync_seconds=0.05).clean(OCCASION)
        assert kernel.read_bytes() == b""
    finally:
        answer.set()


def test_a_kernel_that_does_not_take_it_is_told(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with pytest.raises(RefusedError, match="/dev/full: No space left on device"):
        DropCachesCleaner("/dev/full", lambda: None).clean(OCCASION)


# -- gpu-reset --------------------------------------------------------------------------------------------------


@pytest.fixture
def smi(tmp_path):
    return FakeSmi(tmp_path)


def cleaner(smi, *fallback, **bounds):
    return GpuResetCleaner(NvidiaSmi(os.fspath(smi.path), **bounds), fallback)


def refusal(step):
    with pytest.raises(RefusedError) as caught:
        step.clean(OCCASION)
    return str(caught.value)


def test_gpus_that_nobody_uses_are_reset_once_a_run(smi):
    caches = Step()
    step = cleaner(smi, caches)
    assert step.clean(OCCASION) == "the GPUs were reset"
    assert smi.calls == ["--query-compute-apps", "--query-gpu", "--gpu-reset"]
    assert step.clean(OCCASION) == Skip("the GPUs were reset already: once a run")
    assert (smi.resets, caches.calls) == (1, 0)


@pytest.mark.parametrize(
    ("users", "said"),
    [
        ("4711, /usr/bin/python3\n", "in use by pid 4711 (python3); cleared instead: device cache"),
        ("1, a\n2, b\n3, c\n4, d\n5, e\n", "in use by pid 1 (a), pid 2 (b), pid 3 (c) and 2 more; "),
        ("12, name, with, commas\n", "in use by pid 12 (name, with, commas); "),
        ("[Insufficient Permissions], [Not Found]\n", "in use by pid [Insufficient Permissions] ([Not Found]); "),
        ("7, \x1b]0;title\x07\n", "in use by pid 7 (?]0;title?); "),
    ],
)
def test_gpus_that_somebody_uses_are_not_reset_and_caches_are_cleared_instead(smi, users, said):
    smi.answers("--query-compute-apps", users)
    assert refusal(cleaner(smi, Step())).startswith(said)
    assert smi.resets == 0


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ("0, 0, Disabled\n1, 512, Disabled\n", "512 MiB of GPU 1 are in use by somebody who is not shown"),
        ("0, 0, Enabled\n", "GPU 0 drives a display"),
        ("0, [N/A], Disabled\n", "how much of GPU 0 is in use cannot be told ([N/A])"),
        ("", "shows no GPU"),
        ("No devices were found\n", "answered what cannot be understood: 'No devices were found'"),
    ],
)
def test_where_it_is_not_sure_that_nobody_uses_them_they_are_not_reset(smi, gpus, said):
    smi.answers("--query-gpu", gpus)
    assert said in refusal(cleaner(smi))
    assert smi.resets == 0


@pytest.mark.parametrize("call", ["--query-compute-apps", "--query-gpu"])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"says": "NVIDIA-SMI has failed because\nmore\n", "status": 9}, "NVIDIA-SMI has failed because; cleared"),
        ({"status": 1}, ": it failed; "),
        ({"seconds": 30}, "gave no answer within 0.5 s; "),
    ],
)
def test_a_driver_that_does_not_answer_is_no_idle_one(smi, call, answer, said):
    smi.answers(call, **answer)
    assert said in refusal(cleaner(smi, query_seconds=0.5))
    assert smi.resets == 0


def test_a_reset_that_fails_is_not_tried_again(smi):
    smi.answers("--gpu-reset", "Unable to reset GPU 0: Insufficient Permissions\n", status=4)
    caches = Step()
    step = cleaner(smi, caches)
    for _ in range(2):
        assert "--gpu-reset: Unable to reset GPU 0: Insufficient Permissions; cleared" in refusal(step)
    assert (smi.resets, caches.calls) == (1, 2)


def test_once_nobody_uses_them_any_more_they_are_reset(smi):
    smi.answers("--query-compute-apps", "4711, python\n")
    step = cleaner(smi)
    refusal(step)
    smi.answers("--query-compute-apps")
    assert step.clean(OCCASION) == "the GPUs were reset"


def test_without_nvidias_tool_the_caches_are_cleared(tmp_path):
    step = GpuResetCleaner(NvidiaSmi(os.fspath(tmp_path / "none")), [Step("a", Skip("no")), Step("b", OSError("busy"))])
    assert refusal(step) == f"{tmp_path}/none is not there; cleared instead: b failed (OSError: busy)"
    (tmp_path / "none").write_text("no program")
    assert "cannot be run: Permission denied" in refusal(step)
    nothing = GpuResetCleaner(NvidiaSmi(os.fspath(tmp_path / "no")), [Step("a", Skip("no"))])
    assert refusal(nothing).endswith("cleared instead: nothing, as no framework has caches here")


def test_only_what_is_named_is_a_step():
    drop, reset = Step("drop-caches"), Step("gpu-reset")
    system = SystemCleaners(drop, reset)
    assert system.named(["ros2", "port"]) == []
    assert system.named(["gpu-reset"]) == [reset]
    assert system.named(["gpu-reset", "drop-caches"]) == [drop, reset]
