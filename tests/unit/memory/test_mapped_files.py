"""What is mapped from a file is told from memory."""

import mmap
import sys

import pytest

from pytest_gpuclean.memory.mapped_files import MappedFiles, mapped_files

MAPS = """\
55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000800000 rw-p 00000000 08:01 4242                       /models/weights 1.safetensors
7f0000800000-7f0000c00000 rw-s 00000000 00:1a 17                         /dev/shm/torch_1_2_0 (deleted)
7f0000c00000-7f0001000000 rw-s 00000000 00:01 2048                       /memfd:pool (deleted)
7f0001000000-7f0001400000 rw-s 00000000 00:01 98305                      /SYSV00000000 (deleted)
7f0001400000-7f0001800000 rw-p 00000000 00:00 0
7f0001800000-7f0001c00000 rw-s 00000000 00:05 1023                       /dev/nvidia0
7f0001c00000-7f0002000000 r--p 00400000 08:01 4243                       /models/gone (deleted)
"""


@pytest.mark.parametrize(
    ("address", "is_of_a_file"),
    [
        (0x55D0C0000010, False),
        (0x7EFFFFFFFFFF, False),
        (0x7F0000000000, True),
        (0x7F00007FFFFF, True),
        (0x7F0000800000, False),
        (0x7F0000C00000, False),
        (0x7F0001000000, False),
        (0x7F0001400000, False),
        (0x7F0001800000, False),
        (0x7F0001C00000, True),
        (0x7F0002000000, False),
        (0, False),
    ],
)
def test_only_files_count(address, is_of_a_file):
    assert (address in MappedFiles(MAPS.splitlines(keepends=True))) == is_of_a_file


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_maps_of_this_process_are_read(tmp_path):
    numpy = pytest.importorskip("numpy")
    path = tmp_path / "weights"
    path.write_bytes(bytes(mmap.PAGESIZE))
    mapped = numpy.memmap(path, mode="r")
    assert mapped.ctypes.data in mapped_files()
    assert numpy.zeros(8).ctypes.data not in mapped_files()
