"""The GPUs of the machine with who uses them, as far as this package can read a driver."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from pytest_gpuclean.model import Unavailable


class Card(Protocol):
    """One GPU, or a part of one."""

    name: str
    uuid: str
    total_bytes: int | None
    used_bytes: int | None

    @property
    def label(self) -> str:
        """Give what it is called: `cuda:0`, `GPU 3`."""


class CardUser(Protocol):
    """A process that uses it."""

    pid: int
    used_bytes: int | None
    kind: str


class CardUse(Protocol):
    """One GPU and its users."""

    card: Card
    users: Sequence[CardUser] | Unavailable


Cards = Sequence[CardUse] | Unavailable


def read_cards() -> Cards:
    """Ask NVIDIA's driver, where it is there."""
    try:
        nvml = importlib.import_module("pytest_gpuclean.memory.nvml")
    except ImportError:
        return Unavailable("nvml", "this version of pytest-gpuclean does not ask the driver")
    return cast("Cards", nvml.Nvml().use())
