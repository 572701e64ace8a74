"""What a test leaks is its leak, though a later one frees it; that freeing excuses nobody."""

import pytest
import torch

FLAGGED = {
    "test_leaks": "leaked 16.0 MiB on ",
    "test_leaks_afterwards": "leaked 16.0 MiB on ",
}
HELD = {
    "test_leaks": "test_freed_later.CACHE[N]",
    "test_leaks_afterwards": "test_freed_later.CACHE[N]",
}

CACHE = []


@pytest.fixture(scope="module", autouse=True)
def weights(device):
    return torch.ones(2048, 1024, device=device)


def test_leaks(device):
    CACHE.append(torch.ones(2048, 2048, device=device))


def test_frees():
    CACHE.clear()


def test_uses_memory(device):
    assert torch.ones(2048, 2048, device=device).sum() > 0


def test_leaks_afterwards(device):
    CACHE.append(torch.ones(2048, 2048, device=device))
