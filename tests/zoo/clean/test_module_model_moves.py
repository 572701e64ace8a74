"""A module fixture's model that tests move, enlarge, shrink and fill."""

import pytest
import torch
from torch import nn


@pytest.fixture(scope="module")
def model():
    return nn.ModuleDict({"body": nn.Linear(2048, 1024), "head": nn.Linear(1024, 16)})


@pytest.fixture(scope="module")
def lazy(device):
    return nn.LazyLinear(1024, device=device)


def test_moves_it_there(model, device):
    model.to(device)


def test_trains_it(model, device):
    model.to(device)
    model["head"](model["body"](torch.ones(8, 2048, device=device))).sum().backward()


def test_enlarges_it(model, device):
    model["head"] = nn.Linear(1024, 4096).to(device)


def test_shrinks_it(model, device):
    model["head"] = nn.Linear(1024, 16).to(device)


def test_moves_it_back(model):
    model.to("cpu")


def test_moves_it_there_again(model, device):
    model.to(device)


def test_adds_a_buffer(model, device):
    model["body"].register_buffer("mean", torch.ones(2048, 1024, device=device))


def test_makes_the_weights_at_the_first_call(lazy, device):
    assert lazy(torch.ones(4, 2048, device=device)).shape == (4, 1024)


def test_uses_them_afterwards(lazy, device):
    lazy(torch.ones(4, 2048, device=device)).sum().backward()
