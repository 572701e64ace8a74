"""A fixture that depends on another one, and trains it in its setup."""

import pytest
import torch
from torch import nn


@pytest.fixture(scope="session")
def backbone(device):
    return nn.Linear(2048, 1024).to(device)


@pytest.fixture(scope="module")
def trained(backbone, device):
    optimizer = torch.optim.Adam(backbone.parameters())
    backbone(torch.ones(8, 2048, device=device)).sum().backward()
    optimizer.step()
    return backbone


@pytest.fixture(scope="module")
def optimizer(trained):
    return torch.optim.Adam(trained.parameters())


@pytest.fixture(scope="class")
def without_gradients(trained):
    trained.zero_grad(set_to_none=True)
    return trained


@pytest.fixture
def prepared(trained, optimizer, device):
    trained(torch.ones(8, 2048, device=device)).sum().backward()
    optimizer.step()
    yield trained
    optimizer.zero_grad(set_to_none=True)


def test_predicts(trained, device):
    assert trained(torch.ones(8, 2048, device=device)).shape == (8, 1024)


def test_uses_what_is_prepared(prepared):
    assert prepared.weight.grad is not None


class TestWithout:
    def test_has_no_gradients(self, without_gradients):
        assert without_gradients.weight is not None

    def test_makes_them_anew(self, without_gradients, device):
        without_gradients(torch.ones(8, 2048, device=device)).sum().backward()


def test_extends_the_backbone(backbone, device):
    backbone.extra = nn.Linear(2048, 1024).to(device)


def test_drops_the_extension(backbone):
    backbone.extra = None
