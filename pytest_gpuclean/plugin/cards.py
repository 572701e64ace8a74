"""The cards of the machine, as the parts of a run share them: one NVML, asked when somebody needs it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_gpuclean.model import Unavailable

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


def holders_of(nvml: Nvml, card: Card) -> Sequence[str]:
    """Name the other processes that use a card, the largest first: `pid 4711 python train.py (user bob): 20.1 GiB`."""
    from pytest_gpuclean.cards import who_holds
    from pytest_gpuclean.processes.procfs import Procfs

    found = nvml.use_of([card]) if card.uuid else ()
    if isinstance(found, Unavailable) or not found or isinstance(found[0].users, Unavailable):
        return ()
    others = tuple(user for user in found[0].users if user.pid != os.getpid())
    names = who_holds(replace(found[0], users=others), Procfs())
    more = [f"{len(names) - _MOST_HOLDERS} more"] if len(names) > _MOST_HOLDERS else []
    return [*names[:_MOST_HOLDERS], *more]
