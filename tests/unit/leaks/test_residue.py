"""What a test left beside memory is named, what was there before is not."""

import mmap
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from pytest_gpuclean.leaks.residue import Residue
from pytest_gpuclean.units import MiB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")


@pytest.fixture
def residue():
    found = Residue()
    found.mark()
    return found


def test_nothing_is_left_where_nothing_came(residue):
    assert residue.left() == ()


def test_a_thread_is_named_with_where_it_stands(residue):
    end = threading.Event()

    def loop():
        end.wait(60)

    thread = threading.Thread(target=loop, name="loader\n0")
    thread.start()
    try:
        (line,) = residue.left()
        assert line.startswith("thread 'loader")
        assert "\n" not in line
        assert f"now at {Path(__file__).name}:" in line
        assert line.endswith(" in loop")
    finally:
        end.set()
        thread.join()
    assert residue.left() == ()


def test_a_listening_socket_is_named_by_its_address(residue):
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert residue.left() == (f"socket 127.0.0.1:{server.getsockname()[1]}, listening",)


def test_files_and_pipes_are_named(residue, tmp_path):
    path = tmp_path / "data.bin"
    read, write = os.pipe()
    with path.open("w"):
        assert sorted(residue.left()) == ["2 x pipe", f"open file {path}"]
    os.close(read)
    os.close(write)


def test_a_descriptor_that_was_known_and_closed_and_given_anew_is_new(tmp_path):
    residue = Residue()
    with (tmp_path / "first").open("w") as first:
        residue.mark()
        number = first.fileno()
    with (tmp_path / "second").open("w") as second:
        assert second.fileno() == number
        assert residue.left() == (f"open file {tmp_path / 'second'}",)


def test_shared_memory_is_named_with_its_size(residue):
    path = Path(f"/dev/shm/residue-{os.getpid()}")
    try:
        path.write_bytes(b"")
        with path.open("r+b") as file:
            file.truncate(2 * MiB)
            with mmap.mmap(file.fileno(), 2 * MiB):
                assert residue.left() == (f"shared memory {path} (2.0 MiB)",)
    finally:
        path.unlink(missing_ok=True)


def test_many_are_cut_and_that_is_said(residue, tmp_path):
    files = [(tmp_path / f"{number}").open("w") for number in range(9)]
    try:
        left = residue.left()
        assert len(left) == 7
        assert left[-1] == "and 3 more of the kind"
    finally:
        for file in files:
            file.close()


def test_what_is_known_after_a_mark_is_told_no_more(residue):
    with socket.create_server(("127.0.0.1", 0)):
        residue.mark()
        assert residue.left() == ()


def test_without_proc_there_is_nothing_to_tell(tmp_path):
    residue = Residue(tmp_path / "nowhere")
    residue.mark()
    assert residue.left() == ()
