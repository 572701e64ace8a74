"""The last test leaks while a module fixture gives back as much."""

import pytest
import torch

FLAGGED = {"test_leaks_as_much_as_its_fixture_gives_back": "leaked 16.0 MiB on "}
HELD = {
    "test_leaks_as_much_as_its_fixture_gives_back": "test_released_together.CACHE[N]",
}

CACHE = []


@pytest.fixture(scope="module")
def weights(device):
    weights = [torch.ones(2048, 2048, device=device)]
    yield weights
    weights.clear()


def test_leaks_as_much_as_its_fixture_gives_back(weights, device):
    CACHE.append(weights[0] * 2)
