"""torch.compile, with a backend that needs no compiler."""

import pytest
import torch
from torch import nn


@pytest.fixture(scope="module")
def model(device):
    return nn.Linear(2048, 1024).to(device)


@torch.compile(backend="eager")
def scale(x, weights):
    return x * weights + 1


def test_compiles_a_function(device):
    assert scale(torch.ones(2048, 1024, device=device), torch.ones(2048, 1024, device=device)).max() == 2


def test_compiles_it_for_another_shape(device):
    assert scale(torch.ones(1024, 1024, device=device), torch.ones(1024, 1024, device=device)).max() == 2


def test_compiles_a_model_of_its_own(device):
    model = torch.compile(nn.Linear(2048, 1024).to(device), backend="eager")
    model(torch.ones(4, 2048, device=device)).sum().backward()


def test_compiles_the_model_of_the_module(model, device):
    compiled = torch.compile(model, backend="eager")
    compiled(torch.ones(4, 2048, device=device)).sum().backward()


def test_closes_over_a_tensor(device):
    weights = torch.ones(2048, 1024, device=device)

    @torch.compile(backend="eager")
    def apply(x):
        return x * weights

    assert apply(torch.ones(2048, 1024, device=device)).max() == 1


def test_compiles_with_autograd(device):
    compiled = torch.compile(nn.Linear(2048, 1024).to(device), backend="aot_eager")
    compiled(torch.ones(4, 2048, device=device)).sum().backward()
