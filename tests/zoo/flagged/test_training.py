"""What training leaves behind: activations, losses with their graphs, copies of a model."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

FLAGGED = {
    "test_registers_a_hook_that_stores_activations": "leaked 16.0 MiB on ",
    "test_keeps_losses_with_their_graph": "leaked 24.0 MiB on ",
    "test_keeps_what_only_the_graph_has_saved": "leaked 16.0 MiB on ",
    "test_keeps_a_copy_of_the_model": "leaked 8.0 MiB on ",
    "test_keeps_the_best_state": "leaked 8.0 MiB on ",
    "test_keeps_gradients": "leaked 8.0 MiB on ",
    "test_keeps_an_optimizer_of_a_model_of_its_own": "leaked 32.0 MiB on ",
    "test_trains_a_global_model": "leaked 16.0 MiB on ",
}
HELD = {
    "test_keeps_a_copy_of_the_model": 'test_training.BEST["model"][N].weight',
    "test_keeps_an_optimizer_of_a_model_of_its_own": [
        'test_training.BEST["optimizer"][N].state.keys()',
        'test_training.BEST["optimizer"][N].state[<Parameter>]["exp_avg',
    ],
    "test_keeps_gradients": 'test_training.BEST["gradients"][N][N]',
    "test_keeps_losses_with_their_graph": "test_training.LOSSES[N]",
    "test_keeps_the_best_state": 'test_training.BEST["state"][N]["weight"]',
    "test_keeps_what_only_the_graph_has_saved": "test_training.LOSSES[N]",
    "test_registers_a_hook_that_stores_activations": "test_training.ACTIVATIONS[N]",
    "test_trains_a_global_model": 'test_training.BEST["global"][N].weight',
}

ACTIVATIONS = []
LOSSES = []
BEST = {}


@pytest.fixture(scope="module")
def model(device):
    return nn.Linear(2048, 1024, bias=False).to(device)


def test_registers_a_hook_that_stores_activations(model, device):
    handle = model.register_forward_hook(lambda module, args, output: ACTIVATIONS.append(output.detach()))
    model(torch.ones(4096, 2048, device=device))
    handle.remove()


def test_keeps_losses_with_their_graph(device):
    weights = torch.ones(2048, 1024, device=device, requires_grad=True)
    for _ in range(2):
        LOSSES.append((weights * torch.ones(2048, 1024, device=device)).sum())


def test_keeps_what_only_the_graph_has_saved(device):
    logits = torch.zeros(2048, 1024, device=device, requires_grad=True)
    LOSSES.append(functional.cross_entropy(logits, torch.zeros(2048, dtype=torch.long, device=device)))


def test_trains_and_keeps_numbers(model, device):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = []
    for _ in range(3):
        loss = model(torch.ones(16, 2048, device=device)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    optimizer.zero_grad(set_to_none=True)
    BEST["history"] = history


def test_keeps_a_copy_of_the_model(model):
    twin = copy.deepcopy(model)
    twin.zero_grad(set_to_none=True)
    BEST["model"] = BEST.get("model", ()), twin


def test_keeps_the_best_state(model):
    BEST["state"] = BEST.get("state", ()), {name: value.detach().clone() for name, value in model.state_dict().items()}


def test_keeps_gradients(device):
    model = nn.Linear(2048, 1024, bias=False).to(device)
    model(torch.ones(16, 2048, device=device)).sum().backward()
    BEST["gradients"] = BEST.get("gradients", ()), [parameter.grad for parameter in model.parameters()]


def test_keeps_an_optimizer_of_a_model_of_its_own(device):
    model = nn.Linear(2048, 1024, bias=False).to(device)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(16, 2048, device=device)).sum().backward()
    optimizer.step()
    BEST["optimizer"] = BEST.get("optimizer", ()), optimizer


def test_trains_a_global_model(device):
    model = nn.Linear(2048, 1024, bias=False).to(device)
    BEST["global"] = BEST.get("global", ()), model
    model(torch.ones(16, 2048, device=device)).sum().backward()
