"""The cards of the machine, as the parts of a run share them: one NVML, asked when somebody needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.units import format_size

if TYPE_CHECKING:
    from pytest_gpuclean.memory.cards import Card
    from pytest_gpuclean.memory.nvml import Nvml

NVML = pytest.StashKey["Nvml"]()
_MOST_HOLDERS = 3


def nvml_of(config: pytest.Config) -> Nvml:
    """Return the run's NVML. Nothing is imported or initialised before it is asked something."""
    if NVML not in config.stash:
        from pytest_gpuclean.memory.nvml import Nvml

        config.stash[NVML] = Nvml()
    return config.stash[NVML]


def holders_of(nvml: Nvml, card: Card) -> Iterator[str]:
    """Name the other processes that use a card, the largest first: `pid 4711 python train.py: 20.1 GiB`."""
    from pytest_gpuclean.processes.command import label, read_command
    from pytest_gpuclean.processes.procfs import Procfs

    users = nvml.users(card) if card.uuid else ()
    if isinstance(users, Unavailable):
        return
    others = sorted((user for user in users if user.pid != os.getpid()), key=lambda user: -(user.used_bytes or 0))
    for user in others[:_MOST_HOLDERS]:
        what = label(read_command(Procfs(), user.pid, os.getpid()))
        size = "" if user.used_bytes is None else f": {format_size(user.used_bytes)}"
        yield f"pid {user.pid} {what}{size}"
    if len(others) > _MOST_HOLDERS:
        yield f"{len(others) - _MOST_HOLDERS} more"
