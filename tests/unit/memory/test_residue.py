"""What a test left besides memory is named, what was there before is not."""

import _thread
import contextlib
import gc
import os
import select
import socket
import subprocess
import sys
import threading
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

import pytest

from pytest_gpuclean.memory.descriptors import open_descriptors
from pytest_gpuclean.memory.places import Places
from pytest_gpuclean.memory.residue import Residue
from pytest_gpuclean.units import MiB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is read")
HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.fixture
def residue():
    resource_tracker.ensure_running()  # else it comes up with the first shared memory, and its pipe with it
    residue = Residue(places=Places(HERE))
    residue.mark()
    return residue


# -- descriptors ----------------------------------------------------------------------------------------------------


def test_nothing_is_left_where_nothing_came(residue):
    assert residue.left() == ()
    assert residue.left() == ()


def test_the_look_itself_opens_nothing(residue):
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        residue.mark()
        residue.left()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("gaps", [0, 1, 3])
def test_the_descriptors_that_are_open_are_listed_without_that_of_the_look(gaps):
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
    try:
        for _ in range(gaps):
            os.close(opened.pop(1))
        expected = set()
        for number in range(1024):
            with contextlib.suppress(OSError):
                os.fstat(number)
                expected.add(number)
        assert open_descriptors() == expected
        assert set(opened) <= expected
    finally:
        for number in opened:
            os.close(number)


def test_a_listening_socket_goes_by_its_address(residue):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert residue.left() == (f"socket 127.0.0.1:{port} (listening)",)
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0]:
            mine = client.getsockname()[1]
            assert set(residue.left()) == {
                f"socket 127.0.0.1:{port} (listening)",
                f"socket 127.0.0.1:{mine} to 127.0.0.1:{port}",
                f"socket 127.0.0.1:{port} to 127.0.0.1:{mine}",
            }
    assert residue.left() == ()


def test_other_sockets_go_by_what_they_have(residue, tmp_path):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        path = os.path.relpath(tmp_path / "s")  # its name may be no longer than 107 bytes
        server.bind(path)
        datagrams.bind(("127.0.0.1", 0))
        assert set(residue.left()) == {f"Unix socket {path}", f"UDP socket 127.0.0.1:{datagrams.getsockname()[1]}"}


def test_a_socket_stays_as_its_owner_has_set_it(residue):
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.setdefaulttimeout(5)
        try:
            residue.left()
        finally:
            socket.setdefaulttimeout(None)
        assert os.get_blocking(server.fileno())


def test_pipes_count_together(residue):
    ends = os.pipe()
    assert residue.left() == ("pipe, 2 of them",)
    os.close(ends[0])
    assert residue.left() == ("pipe",)
    os.close(ends[1])


def test_a_file_goes_by_its_path_and_one_that_is_gone_is_said_to_be(residue, tmp_path):
    with open(tmp_path / "kept.bin", "wb"), open(tmp_path / "gone.bin", "wb"):
        os.unlink(tmp_path / "gone.bin")
        assert residue.left() == (f"file {tmp_path}/kept.bin", f"file {tmp_path}/gone.bin (deleted)")


def test_a_path_is_printed_without_what_a_terminal_would_obey(residue, tmp_path):
    with open(tmp_path / "a\x1b[31m\n", "wb"):
        assert residue.left() == (rf"file {tmp_path}/a\x1b[31m\n",)


def test_a_path_that_is_no_text_is_no_trouble(residue, tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"\xff\xfe"), "wb"):
        assert residue.left() == (rf"file {tmp_path}/\udcff\udcfe",)


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="since Python 3.10, and glibc 2.8")
def test_what_has_no_path_goes_by_its_kind(residue):
    with select.epoll():
        number, memory = os.eventfd(0), os.memfd_create("buffer")
        try:
            assert sorted(residue.left()) == ["epoll", "eventfd", "memory file 'buffer'"]
        finally:
            os.close(number)
            os.close(memory)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="there are no pidfds")
def test_pidfds_and_looks_at_proc_are_none_of_the_tests(residue):
    opened = [os.pidfd_open(os.getpid()), os.open("/proc/self/statm", os.O_RDONLY)]
    try:
        assert residue.left() == ()
    finally:
        for number in opened:
            os.close(number)


def test_devices_come_last(residue, tmp_path):
    with open(os.devnull, "wb"), open("/dev/zero", "rb"), open(tmp_path / "file", "wb"):
        assert residue.left() == (f"file {tmp_path}/file", "/dev/null", "/dev/zero")


def test_descriptors_of_the_caller_are_spared(tmp_path):
    with open(tmp_path / "ledger", "wb") as ledger:
        residue = Residue(spared=lambda: [ledger.fileno()])
        assert not [line for line in residue.left() if "ledger" in line]


def test_a_few_lines_are_enough(residue, tmp_path):
    with contextlib.ExitStack() as files:
        for index in range(9):
            files.enter_context(open(tmp_path / f"{index}", "wb"))
        left = residue.left()
        assert (len(left), left[0], left[-1]) == (6, f"file {tmp_path}/0", "and 4 more")


# -- threads --------------------------------------------------------------------------------------------------------


class Waiting:
    """A thread that waits in a function of this file until it is told to end."""

    def __init__(self, name, kind=threading.Thread):
        self.ready, self.end = threading.Event(), threading.Event()
        self.thread = kind(target=self.read_batches, name=name)

    def read_batches(self):
        self.ready.set()
        self.end.wait()  # here it stands

    def __enter__(self):
        self.thread.start()
        self.ready.wait()
        return self

    def __exit__(self, *error):
        self.end.set()
        self.thread.join()


def line_of(text):
    with open(__file__, encoding="utf-8") as file:
        (number,) = [number for number, line in enumerate(file, 1) if line.rstrip().endswith(f"# {text}")]
    return number


STANDS = f"stands in read_batches() at test_residue.py:{line_of('here it stands')}"


def test_a_thread_goes_by_its_name_and_where_it_stands(residue):
    with Waiting("loader-0"):
        assert [line for line in residue.left() if line == f"thread 'loader-0' {STANDS}"]
        residue.mark()
        assert residue.left() == ()
    assert residue.left() == ()


def test_a_thread_of_a_hostile_class_with_a_hostile_name_is_no_trouble(residue):
    class Hostile(threading.Thread):
        @property
        def name(self):
            raise RuntimeError

        def __repr__(self):
            raise RuntimeError

    with Waiting("first"):
        residue.mark()
        with Waiting("a\x1b[31m\n" + "x" * 500) as second:
            (line,) = residue.left()
            assert line.startswith(r"thread 'a\x1b[31m\nxxx")
            assert len(line) < 160
            second.thread.__class__ = Hostile
            assert residue.left() == (line,)
            second.thread.__class__ = threading.Thread


def test_a_thread_without_an_object_is_found(residue):
    ready, end, gone = threading.Event(), threading.Event(), threading.Event()

    def raw():
        ready.set()
        end.wait()
        gone.set()

    _thread.start_new_thread(raw, ())
    ready.wait()
    try:
        (line,) = residue.left()
        assert line.startswith("a thread without a name stands in raw() at test_residue.py:")
    finally:
        end.set()
        gone.wait()


def test_a_thread_that_only_python_itself_runs_stands_there(residue):
    end = threading.Event()
    thread = threading.Timer(600, end.set)
    thread.name = "timer"
    thread.start()
    try:
        assert any(line.startswith("thread 'timer' stands in ") for line in residue.left())
    finally:
        thread.cancel()
        thread.join()


def test_the_look_keeps_no_frame_alive(residue):
    class Local:
        pass

    def look():
        local = Local()
        residue.mark()
        assert residue.left() == ()
        return id(local)

    gc.collect()
    gc.disable()
    try:
        with Waiting("loader"):
            residue.left()
            look()
            assert not [value for value in gc.get_objects() if type(value) is Local]
    finally:
        gc.enable()


# -- shared memory --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def segment(size=2 * MiB):
    shared = shared_memory.SharedMemory(create=True, size=size)
    try:
        yield shared
    finally:
        shared.close()
        with contextlib.suppress(FileNotFoundError):
            shared.unlink()


def test_shared_memory_goes_by_its_name_and_size(residue):
    with segment() as shared:
        assert residue.left() == (f"/dev/shm/{shared.name} 2.0 MiB",)
        shared.unlink()
        assert residue.left() == (f"/dev/shm/{shared.name} 2.0 MiB",)
    assert residue.left() == ()


def test_shared_memory_that_was_there_before_is_not_named(residue):
    with segment() as older:
        older.buf[0] = 1
        residue.mark()
        with segment(MiB) as newer:
            assert residue.left() == (f"/dev/shm/{newer.name} 1.0 MiB",)


def test_what_is_mapped_alone_and_has_no_name_any_more_is_found(residue):
    torch = pytest.importorskip("torch")
    tensor = torch.ones(MiB // 4).share_memory_()
    (line,) = [line for line in residue.left() if line.startswith("/dev/shm/")]
    assert line.startswith("/dev/shm/torch_")
    assert line.endswith(" 1.0 MiB")
    del tensor


def test_shared_memory_that_has_been_named_is_known_whatever_the_system_says_of_its_use(residue):
    """A batch of a data loader that nobody has touched has no page in this process."""
    torch = pytest.importorskip("torch")
    path = Path("/dev/shm", f"gpuclean-{os.getpid()}")
    path.write_bytes(bytes(MiB))
    try:
        tensor = torch.from_file(str(path), shared=True, size=MiB, dtype=torch.uint8)
        named = f"{path} 1.0 MiB"
        assert named in residue.left()
        residue.mark()
        assert named not in residue.left()
        del tensor
    finally:
        path.unlink()


def test_locks_of_multiprocessing_are_semaphores():
    # Apart: the first one starts a process that looks after them, and its pipe.
    code = """if True:
        import multiprocessing
        from multiprocessing import resource_tracker
        from pytest_gpuclean.memory.residue import Residue

        resource_tracker.ensure_running()
        residue = Residue()
        residue.mark()
        context = multiprocessing.get_context("spawn")
        locks = [context.Lock() for _ in range(3)]
        print(residue.left())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "('semaphore, 3 of them',)"


# -- where there is none of this ------------------------------------------------------------------------------------


def test_without_proc_there_is_nothing_and_no_error(monkeypatch):
    def refused(path, *rest):
        raise FileNotFoundError(path)

    residue = Residue()
    monkeypatch.setattr(os, "listdir", refused)
    residue.mark()
    assert not [line for line in residue.left() if not line.startswith("thread")]
