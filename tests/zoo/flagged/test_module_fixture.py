"""A module fixture that never frees is an error of the last test of its scope."""

import pytest
import torch

FLAGGED_SOMEWHERE = {"fixture 'weights' (module scope) leaked 16.0 MiB on "}

KEPT = []


@pytest.fixture(scope="module")
def weights(device):
    KEPT.append(torch.ones(2048, 2048, device=device))
    return KEPT[-1]


def test_uses_the_weights(weights):
    assert weights.sum() > 0


def test_uses_them_again(weights, device):
    assert (weights @ torch.ones(2048, 1, device=device)).numel() == 2048


def test_does_not_use_them(device):
    assert torch.ones(2048, 2048, device=device).sum() > 0
