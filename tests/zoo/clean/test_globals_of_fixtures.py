"""Fixtures that put what they make into a global, and take it away at their end."""

import pytest
import torch
from torch import nn

MODEL = None
ENGINE = None


@pytest.fixture(scope="module", autouse=True)
def prepare(device):
    global MODEL
    MODEL = nn.Linear(2048, 1024).to(device)
    yield
    MODEL = None


@pytest.fixture(scope="session", autouse=True)
def start_engine(device):
    global ENGINE
    ENGINE = {"model": nn.Linear(2048, 1024).to(device)}
    yield
    ENGINE = None


def test_trains_the_model(device):
    MODEL(torch.ones(8, 2048, device=device)).sum().backward()


def test_predicts(device):
    assert MODEL(torch.ones(8, 2048, device=device)).shape == (8, 1024)


def test_trains_the_engine(device):
    ENGINE["model"](torch.ones(8, 2048, device=device)).sum().backward()


def test_fills_the_engine(device):
    ENGINE["cache"] = torch.ones(2048, 2048, device=device)
