"""The last test of a class, judged when its fixtures end: what pytest keeps of it goes later, some of it in cycles."""

import pytest
import torch


class Engine:
    def __init__(self, device):
        self.weights = torch.ones(1024, 1024, device=device)
        self.scheduler = {"engine": self}


@pytest.fixture(scope="class")
def batch(device):
    return torch.ones(1024, 1024, device=device)


@pytest.fixture(scope="class")
def shared(device):
    return Engine(device)


class TestKeepsOne:
    def test_keeps_an_engine_on_itself(self, batch, device):
        self.engine = Engine(device)


class TestKnowsItself:
    def test_is_kept_by_its_own_attribute(self, batch):
        self.callbacks, self.outputs = [self.test_is_kept_by_its_own_attribute], batch * 2


class TestSharesOne:
    def test_keeps_one_beside_a_shared_one(self, shared, device):
        self.engine, self.shared = Engine(device), shared


class TestHandsItselfOver:
    def test_is_known_to_a_fixture(self, shared, device):
        self.engine, shared.test = Engine(device), self


class TestFails:
    def test_fails_with_one_on_itself(self, batch, device):
        self.engine = Engine(device)
        assert self.engine.weights.max() == 0

    def test_fails_with_one_in_its_error(self, batch, device):
        raise ValueError(Engine(device))


class TestFailsWithBoth:
    def test_fails_with_its_own_and_a_shared_one(self, shared, device):
        raise ValueError(Engine(device), shared)
