"""The heap, and shared memory beside it."""

import mmap
import multiprocessing
import os
import sys
import tempfile
import time

import pytest

psutil = pytest.importorskip("psutil")

from pytest_gpuclean.memory.host import SLOW_READ_SECONDS, HostProbe  # noqa: E402
from pytest_gpuclean.model import Unavailable  # noqa: E402
from pytest_gpuclean.model.memory import HEAP, Reading  # noqa: E402
from pytest_gpuclean.units import MiB  # noqa: E402

if not hasattr(psutil, "heap_info"):
    pytest.skip("psutil.heap_info() is missing here", allow_module_level=True)


def heap_bytes(probe):
    (reading,) = probe.read()
    return reading.allocated_bytes


def test_it_gives_one_reading_of_the_heap():
    (reading,) = HostProbe().read()
    assert isinstance(reading, Reading)
    assert reading.account == HEAP
    assert reading.allocated_bytes == reading.reserved_bytes > 0


def test_it_follows_what_is_allocated_and_freed():
    probe = HostProbe()
    before = heap_bytes(probe)
    block = bytearray(16 * MiB)
    assert abs(heap_bytes(probe) - before - len(block)) < MiB
    del block
    assert abs(heap_bytes(probe) - before) < MiB


def test_a_heap_that_has_moved_by_no_more_than_the_slack_is_the_very_same_reading():
    probe = HostProbe()
    (first,) = probe.read()
    block = bytearray(16 * MiB)
    (again,) = probe.read(slack_bytes=20 * MiB)
    assert again is first
    (less_slack,) = probe.read(slack_bytes=12 * MiB)
    assert less_slack.allocated_bytes - first.allocated_bytes >= 15 * MiB
    del block
    (freed,) = probe.read(slack_bytes=12 * MiB)
    assert less_slack.allocated_bytes - freed.allocated_bytes >= 15 * MiB


def test_small_steps_within_the_slack_add_up():
    probe = HostProbe()
    (first,) = probe.read()
    blocks = []
    readings = []
    for _ in range(20):
        blocks.append(bytearray(MiB))
        readings += probe.read(slack_bytes=4 * MiB)
    assert abs(readings[-1].allocated_bytes - first.allocated_bytes - len(blocks) * MiB) < 6 * MiB
    assert len({id(reading) for reading in readings}) < 8


def test_a_system_without_the_figures_says_so(monkeypatch):
    monkeypatch.delattr(psutil, "heap_info")
    (gap,) = HostProbe().read()
    assert gap == Unavailable("heap", "psutil.heap_info() needs psutil 7.2 on glibc, macOS or Windows")


def test_figures_that_cannot_be_read_are_unavailable_and_not_0(monkeypatch):
    def fail():
        raise OSError("no heap")

    monkeypatch.setattr(psutil, "heap_info", fail)
    assert list(HostProbe().read()) == [Unavailable("heap", "OSError: no heap")]


def test_a_heap_that_is_quick_to_read_is_not_called_slow():
    probe = HostProbe()
    for _ in range(20):
        list(probe.read())
    assert not probe.is_slow


def test_a_heap_is_slow_after_many_slow_reads_in_a_row_and_not_after_a_few(monkeypatch):
    read = psutil.heap_info

    def slow():
        begin = time.thread_time()
        while time.thread_time() - begin < 5 * SLOW_READ_SECONDS:
            pass
        return read()

    probe = HostProbe()
    monkeypatch.setattr(psutil, "heap_info", slow)
    for _ in range(3):
        list(probe.read())
    assert not probe.is_slow
    for _ in range(30):
        list(probe.read())
    assert probe.is_slow


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_batch_in_shared_memory_counts_as_long_as_it_is_mapped():
    """As the batches of DataLoader workers do, which no heap figure shows."""
    torch = pytest.importorskip("torch")
    probe = HostProbe()
    before = heap_bytes(probe)
    batch = torch.zeros(8 * MiB, dtype=torch.uint8).share_memory_()
    assert abs(heap_bytes(probe) - before - 8 * MiB) < MiB
    del batch
    assert abs(heap_bytes(probe) - before) < MiB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_batch_counts_that_comes_when_as_much_of_something_else_goes():
    """A thread that has ended leaves its stack to be unmapped some time: 8 MiB, as large as a batch may be."""
    probe = HostProbe()
    stack = mmap.mmap(-1, 8 * MiB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(8 * MiB)
        before = heap_bytes(probe)
        stack.close()
        batch = mmap.mmap(file.fileno(), 8 * MiB)
        assert abs(heap_bytes(probe) - before - 8 * MiB) < MiB
        batch.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore::RuntimeWarning")
def test_a_forked_child_reads_its_own_figures():
    probe = HostProbe()
    heap_bytes(probe)

    def child(answers):
        before = heap_bytes(probe)
        block = bytearray(16 * MiB)
        answers.put(heap_bytes(probe) - before - len(block))

    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=child, args=(answers,))
    process.start()
    off_by = answers.get()
    process.join()
    assert abs(off_by) < MiB


def test_probes_come_and_go_without_keeping_files_open():
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        list(HostProbe().read())
    assert len(os.listdir("/proc/self/fd")) - before < 10


def test_a_number_that_is_somebody_elses_by_now_is_not_closed(tmp_path):
    import os

    from pytest_gpuclean.memory.host import _SharedMemory

    shared = _SharedMemory()
    number = shared._statm
    if number is None:
        pytest.skip("there is no /proc/self/statm here")
    with open(tmp_path / "file", "w") as file:
        os.dup2(file.fileno(), number)  # as after os.closerange() in a test
        del shared
        os.fstat(number)
        os.close(number)
