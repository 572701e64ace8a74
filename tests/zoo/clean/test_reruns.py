"""A test that fails first and passes when it is run again."""

import pytest
import torch

ATTEMPTS = []


@pytest.fixture(scope="module")
def weights(device):
    return {"x": torch.ones(2048, 2048, device=device)}


@pytest.mark.flaky(reruns=2)
def test_passes_when_it_runs_again(request, device, weights):
    if not request.config.pluginmanager.hasplugin("rerunfailures"):
        pytest.skip("needs pytest-rerunfailures")
    batch = torch.ones(2048, 2048, device=device)
    weights[len(ATTEMPTS)] = batch * 2
    ATTEMPTS.append(1)
    assert len(ATTEMPTS) % 2 == 0


def test_follows(device, weights):
    assert (torch.ones(2048, 2048, device=device) + weights["x"]).max() == 2
