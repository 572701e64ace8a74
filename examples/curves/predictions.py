"""A cache of predictions."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class PredictionCache:
    """Keeps the latest predictions, by the number of points."""

    def __init__(self, model: nn.Module, limit: int = 2) -> None:
        self.model = model
        self.limit = limit
        self.hits = 0
        self._kept: OrderedDict[int, Tensor] = OrderedDict()

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Predict, or return what was predicted for as many points."""
        count = len(x)
        if count in self._kept:
            self.hits += 1
            self._kept.move_to_end(count)
            return self._kept[count]
        self._kept[count] = self.model(x)
        if len(self._kept) > self.limit:
            self._kept.popitem(last=False)
        return self._kept[count]

    def __len__(self) -> int:
        return len(self._kept)
