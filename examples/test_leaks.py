"""Deliberate leaks. `--gpu-leak=fail` makes each of them an error of its test."""

import pytest
import torch
from curves import CurveModel, evaluate, make_points
from torch import nn

MiB = 1024 * 1024
CACHE: list[torch.Tensor] = []
LOSSES: list[torch.Tensor] = []
KNOWN: list[torch.Tensor] = []


def test_a_cache_that_nobody_clears(device: torch.device) -> None:
    CACHE.append(torch.ones(32 * MiB, dtype=torch.uint8, device=device))
    assert CACHE[-1].device.type == device.type


def test_a_loss_that_keeps_its_graph(device: torch.device) -> None:
    """The loss is 4 bytes; the graph behind it keeps every activation. `loss.item()` would keep a number."""
    x, y = make_points(8_192, device)
    LOSSES.append((CurveModel(width=512).to(device)(x) - y).square().mean())
    assert LOSSES[-1] > 0


@pytest.mark.parametrize("number", range(4))
def test_small_leaks_that_add_up(device: torch.device, number: int) -> None:
    """Each keeps less than the threshold: the module is told, at its end."""
    CACHE.append(torch.ones(MiB * 3 // 4, dtype=torch.uint8, device=device))
    assert len(CACHE[-1]) == MiB * 3 // 4


@pytest.mark.gpu_leak(allow="a table that the first use makes, and that stays")
def test_an_allowed_leak(device: torch.device) -> None:
    KNOWN.append(torch.ones(8 * MiB, dtype=torch.uint8, device=device))
    assert evaluate(nn.Identity(), *make_points(8, device)) > 0
