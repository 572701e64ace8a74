"""An allowance for a whole module holds for its fixtures and for what adds up in it."""

import pytest
import torch

pytestmark = pytest.mark.gpu_leak(allow="the engine keeps its plans")

PLANS = []


@pytest.fixture(scope="module")
def engine(device):
    PLANS.append(torch.ones(2048, 2048, device=device))


def test_makes_an_engine(engine):
    assert PLANS


def test_makes_a_plan(device):
    PLANS.append(torch.ones(2048, 1024, device=device))


@pytest.mark.parametrize("step", range(4))
def test_makes_small_plans(device, step):
    PLANS.append(torch.ones(200, 1024, device=device))
