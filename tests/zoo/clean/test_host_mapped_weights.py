"""Weights that are mapped from a file, as torch.load and safetensors do it, are page cache and no leak of anybody's."""

import pytest
import torch

CACHE = {}
KIND = {"dtype": torch.float32}
SIZE_BYTES = 4 * 1024 * 1024


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("mapped") / "model.weights"
    path.write_bytes(bytes(2 * SIZE_BYTES))
    return path


def load(file):
    storage = torch.UntypedStorage.from_file(str(file), False, 2 * SIZE_BYTES)
    return {name: torch.asarray(storage[begin : begin + SIZE_BYTES], **KIND) for name, begin in places()}


def places():
    return [("first", 0), ("second", SIZE_BYTES)]


@pytest.fixture(scope="module")
def weights(file):
    return load(file)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.pt"
    torch.save({"first": torch.ones(1024, 1024), "second": torch.ones(1024, 1024)}, path)
    return torch.load(path, mmap=True)


@pytest.fixture(scope="module")
def outputs():
    return []


def test_uses_the_weights(weights):
    assert weights["first"].max() == 0


def test_adds_to_the_weights(weights):
    weights["third"] = torch.ones(1024, 1024)


def test_uses_a_checkpoint(checkpoint):
    assert checkpoint["first"].max() == 1


def test_adds_to_the_checkpoint(checkpoint):
    checkpoint["third"] = checkpoint["first"] * 2


def test_keeps_mapped_weights(file):
    CACHE.setdefault("weights", load(file))


def test_keeps_an_output_in_a_fixture(outputs):
    outputs.append(torch.ones(1024, 1024))
