"""What another fixture's cache grew by in an earlier test takes nothing off the leak of a fixture."""

import pytest
import torch

FLAGGED = {"test_last": "fixture 'weights' (module scope) leaked 16.0 MiB on "}
HELD = {"test_last": "test_device_beside_a_cache.KEPT[N]"}

KEPT = []


@pytest.fixture(scope="session")
def cache():
    return []


@pytest.fixture(scope="module")
def weights(device):
    KEPT.append(torch.ones(2048, 2048, device=device))


def test_fills_the_cache(cache, device):
    cache.append(torch.ones(192, 1024, device=device))


@pytest.mark.usefixtures("weights")
def test_last():
    pass
