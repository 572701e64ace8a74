"""What the last test of a class leaks is told of it, whatever cycles go with it and with its fixtures."""

import pytest
import torch

KEPT = []
FLAGGED = {
    "TestKeepsOne::test_leaks_beside_its_own_engine": "leaked 4.0 MiB on ",
    "TestStashes::test_uses_what_is_stashed": "fixture 'stashed' (class scope) leaked 4.0 MiB on ",
}
HELD = {
    "TestKeepsOne::test_leaks_beside_its_own_engine": "test_leaks_of_the_last.KEPT[N]",
    "TestStashes::test_uses_what_is_stashed": "test_leaks_of_the_last.KEPT[N]",
}


class Engine:
    def __init__(self, device):
        self.weights = torch.ones(1024, 1024, device=device)
        self.scheduler = {"engine": self}


@pytest.fixture(scope="class")
def shared(device):
    return Engine(device)


@pytest.fixture(scope="class")
def stashed(device):
    KEPT.append(torch.ones(1024, 1024, device=device))
    return Engine(device)


class TestKeepsOne:
    def test_leaks_beside_its_own_engine(self, shared, device):
        self.engine = Engine(device)
        KEPT.append(torch.ones(1024, 1024, device=device))


class TestStashes:
    def test_uses_what_is_stashed(self, stashed, device):
        self.engine, self.stashed = Engine(device), stashed
