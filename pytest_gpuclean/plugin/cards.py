"""The cards of the machine, as the parts of a run share them: one NVML, asked when somebody needs it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.reports.failures import NOWHERE, Elsewhere, is_same_device
from pytest_gpuclean.units import format_size

if TYPE_CHECKING:
    from pytest_gpuclean.memory.cards import Card, CardUse
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
    found = nvml.use_of([card]) if card.uuid else ()
    if isinstance(found, Unavailable) or not found:
        return ()
    return _names(_without_this_process(found[0]))


def elsewhere(nvml: Nvml, device: str) -> Elsewhere:
    """Ask the driver who else holds memory where it ran out.

    Args:
        nvml: the driver's view.
        device: as the error names it; empty where it names none.
    """
    use = nvml.use() if not device or device.startswith("cuda") else ()
    if isinstance(use, Unavailable):
        return NOWHERE
    cards = [_without_this_process(found) for found in use if found.card.device]
    cards = [found for found in cards if is_same_device(device, found.card.device)]
    users = [user for found in cards if not isinstance(found.users, Unavailable) for user in found.users]
    return Elsewhere(
        sentences=tuple(filter(None, map(_sentence, cards))),
        held_bytes=sum(user.used_bytes or 0 for user in users),
    )


def _without_this_process(found: CardUse) -> CardUse:
    if isinstance(found.users, Unavailable):
        return found
    return replace(found, users=tuple(user for user in found.users if user.pid != os.getpid()))


def _sentence(found: CardUse) -> str:
    card, names = found.card, _names(found)
    if card.free_bytes is None and not names:
        return ""
    total = "" if card.total_bytes is None else f" of {format_size(card.total_bytes)}"
    free = "" if card.free_bytes is None else f"{format_size(card.free_bytes)}{total} are free on {card.label}"
    others = f"other processes use it: {', '.join(names)}" if names else "the driver lists no other process there"
    return "; ".join(filter(None, [free, others]))


def _names(found: CardUse) -> list[str]:
    from pytest_gpuclean.cards import who_holds
    from pytest_gpuclean.processes.procfs import Procfs

    names = who_holds(found, Procfs())
    more = [f"{len(names) - _MOST_HOLDERS} more"] if len(names) > _MOST_HOLDERS else []
    return [*names[:_MOST_HOLDERS], *more]
