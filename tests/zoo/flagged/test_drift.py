"""Tests that each stay under the threshold and add up are an error of their module."""

import pytest
import torch

FLAGGED_SOMEWHERE = {"module flagged/test_drift.py leaked "}

HISTORY = []


@pytest.mark.parametrize("step", range(20))
def test_keeps_less_than_the_threshold(device, step):
    HISTORY.append(torch.full((230 * 1024,), float(step), device=device))
