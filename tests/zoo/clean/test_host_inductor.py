"""torch.compile with its own compiler; slow, so only where it is asked for."""

import os
import shutil

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.skipif(
    not os.environ.get("GPUCLEAN_ZOO_SLOW") or shutil.which("g++") is None,
    reason="takes a compiler and half a minute: set GPUCLEAN_ZOO_SLOW=1",
)


@pytest.fixture(scope="module")
def model():
    return nn.Sequential(nn.Linear(2048, 1024), nn.GELU())


def test_compiles_a_model(model):
    compiled = torch.compile(model)
    compiled(torch.ones(8, 2048)).sum().backward()


def test_compiles_one_of_its_own():
    compiled = torch.compile(nn.Sequential(nn.Linear(2048, 1024), nn.GELU()))
    assert compiled(torch.ones(8, 2048)).shape == (8, 1024)
