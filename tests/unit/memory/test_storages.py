"""One identity for all views of a block."""

import sys

import pytest

numpy = pytest.importorskip("numpy")

from pytest_gpuclean.memory.storages import Storage, StorageReaders  # noqa: E402
from pytest_gpuclean.model.memory import ARRAYS, Account  # noqa: E402
from pytest_gpuclean.units import MiB  # noqa: E402
from unit.fakes import fake_module, put  # noqa: E402


def storage_of(value, rounds=False):
    readers = StorageReaders()
    readers.rounds = rounds
    reader = readers.reader_of(type(value))
    return reader(value) if reader else None


def test_a_value_that_is_no_array_has_no_reader():
    assert all(StorageReaders().reader_of(kind) is None for kind in (int, dict, list, object, type))


def test_views_have_the_identity_of_their_base():
    base = numpy.zeros(MiB, dtype=numpy.uint8)
    assert storage_of(base) == storage_of(base[5:]) == storage_of(base.reshape(2, -1)[1])
    assert storage_of(base).account == ARRAYS
    assert storage_of(base).size_bytes == MiB


def test_two_arrays_have_two_identities():
    first, second = numpy.zeros(10), numpy.zeros(10)
    assert storage_of(first).identity != storage_of(second).identity


def test_a_tensor_has_the_identity_of_the_array_it_shares_memory_with():
    torch = pytest.importorskip("torch")
    base = numpy.zeros(MiB, dtype=numpy.uint8)
    tensor = torch.from_numpy(base)
    assert storage_of(tensor).identity == storage_of(base).identity
    other = torch.zeros(10)
    assert storage_of(other.numpy()).identity == storage_of(other).identity


def test_device_blocks_round_up_where_the_allocator_tells_rounded_figures_alone(simgpu):
    import torch

    tensor = torch.empty(1000, dtype=torch.uint8, device="simgpu:1")
    exact, rounded = storage_of(tensor), storage_of(tensor, rounds=True)
    assert exact.account == rounded.account == Account("simgpu:1", "torch")
    assert (exact.size_bytes, rounded.size_bytes) == (1000, 1024)


class Memory:
    device_id, ptr, size = 1, 4096, 512


class CupyArray:
    class data:
        mem = Memory


def test_a_cupy_array_is_read_by_its_memory(monkeypatch):
    put(monkeypatch, fake_module("cupy", ndarray=CupyArray))
    assert storage_of(CupyArray()) == Storage(Account("cuda:1", "cupy"), ("cuda:1", 4096), 512)


def test_an_array_that_cannot_be_read_holds_nothing_known(monkeypatch):
    class Broken(CupyArray):
        @property
        def data(self):
            raise RuntimeError("gone")

    put(monkeypatch, fake_module("cupy", ndarray=CupyArray))
    assert storage_of(Broken()) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("is_shared", [False, True])
def test_a_tensor_on_a_mapped_file_holds_no_memory(tmp_path, is_shared):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights"
    path.write_bytes(bytes(MiB))
    storage = torch.UntypedStorage.from_file(str(path), is_shared, MiB)
    tensor = torch.asarray(storage[4096:], dtype=torch.uint8)
    assert storage_of(storage) is storage_of(tensor) is None
    assert storage_of(tensor.clone()).size_bytes == MiB - 4096


def test_a_tensor_that_cannot_be_resized_still_holds_memory():
    torch = pytest.importorskip("torch")
    for tensor in (torch.ones(MiB).share_memory_(), torch.frombuffer(bytearray(MiB), dtype=torch.uint8)):
        assert storage_of(tensor).size_bytes >= MiB
