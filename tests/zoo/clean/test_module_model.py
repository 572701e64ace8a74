"""A model and an optimizer of a module fixture: gradients and states come to life in the tests that train them."""

import copy

import pytest
import torch
from torch import nn


@pytest.fixture(scope="module")
def model(device):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, 16)).to(device)


@pytest.fixture(scope="module")
def optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)


@pytest.fixture
def batch(device):
    return torch.ones(32, 2048, device=device)


def test_predicts(model, batch):
    with torch.no_grad():
        assert model(batch).shape == (32, 16)


def test_has_gradients_after_a_backward_pass(model, batch):
    model(batch).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_trains(model, optimizer, batch):
    for _ in range(3):
        optimizer.zero_grad(set_to_none=True)
        model(batch).square().mean().backward()
        optimizer.step()
    assert optimizer.state


def test_drops_the_gradients(model):
    model.zero_grad(set_to_none=True)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_trains_with_a_scheduler(model, optimizer, batch):
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.zero_grad()
    model(batch).sum().backward()
    optimizer.step()
    scheduler.step()


def test_trains_with_another_optimizer(model, batch):
    other = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(batch).sum().backward()
    other.step()


def test_evaluates_a_copy(model, batch):
    twin = copy.deepcopy(model)
    assert twin(batch).shape == (32, 16)


def test_uses_autocast(model, batch, device):
    # The simulated accelerator has no kernels for it.
    with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=device == "cpu"):
        assert model(batch).numel() == 32 * 16


def test_fails_while_it_trains(model, optimizer, batch):
    optimizer.zero_grad(set_to_none=True)
    loss = model(batch).sum()
    loss.backward()
    optimizer.step()
    assert loss != loss


def test_hooks_the_model_for_a_while(model, batch):
    seen = []
    handle = model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    model(batch)
    handle.remove()
    assert len(seen) == 1


def test_hooks_the_model_and_leaves_the_hook_there(model, batch):
    seen = []
    model[1].register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    model(torch.ones(2048, 2048, device=batch.device))
    assert seen


def test_saves_and_loads(model, tmp_path):
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, tmp_path / "model.pt")
    model.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
