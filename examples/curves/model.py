"""The model and its data."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CurveModel(nn.Module):
    """A perceptron with one hidden layer."""

    def __init__(self, width: int = 1024) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh())
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict y for points of shape [n, 1]."""
        return self.head(self.layers(x))


def make_points(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Make points on a sine, of shape [count, 1], with a little noise."""
    x = torch.linspace(-3, 3, count, device=device).unsqueeze(1)
    return x, torch.sin(x) + 0.01 * torch.randn_like(x)
