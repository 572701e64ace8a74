"""The cards that tests can use, with their memory: from the driver, or from a framework that has them initialised."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

from pytest_gpuclean.memory.cards import Card
from pytest_gpuclean.memory.cuda_visible import VARIABLE, Visible
from pytest_gpuclean.memory.driver import active_cuda_devices
from pytest_gpuclean.memory.interface import first_line, loaded, member, whole
from pytest_gpuclean.memory.torch import initialised_backends
from pytest_gpuclean.model import Unavailable


class Driver(Protocol):
    """What is asked of NVML here."""

    def visibility(self) -> Visible | Unavailable:
        """Read the cards that CUDA shows to this process."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The visible cards of one moment."""

    cards: tuple[Card, ...]
    hint: str = ""
    """Why there may be fewer than the machine has."""


class VisibleCards:
    """Reads the visible cards without initialising one.

    Args:
        driver: NVML.
        environ: where the variables that hide cards are read.
    """

    def __init__(self, driver: Driver, environ: Mapping[str, str] | None = None) -> None:
        self._driver = driver
        self._environ = os.environ if environ is None else environ

    def read(self) -> Seen | Unavailable:
        """Read them, as `cuda:N` or as the accelerator is named that torch uses."""
        torch = loaded("torch")
        backends = [name for name in initialised_backends(torch) if name != "mps"] if torch is not None else []
        if torch is not None and backends and backends[0] != "cuda":  # NVML knows nothing of it
            return _of_torch(torch, backends[0])
        found = self._driver.visibility()
        if not isinstance(found, Unavailable):
            return Seen(found.cards, found.problem or self._hint())
        if torch is not None and backends:
            return _of_torch(torch, backends[0])
        return Unavailable(found.source, f"{found.reason}, and no framework has initialised a device yet")

    def _hint(self) -> str:
        value = self._environ.get(VARIABLE)
        return "" if value is None else f"{VARIABLE}={value!r}"


def _of_torch(torch: ModuleType, backend: str) -> Seen | Unavailable:
    module = member(torch, backend)
    read = member(module, "mem_get_info")
    if read is None:
        return Unavailable("torch", f"torch.{backend} does not say how much memory its devices have")
    # Asking CUDA for the memory of a device makes a context on it, where it has none.
    indices = active_cuda_devices() if backend == "cuda" else range(module.device_count())
    cards = []
    for index in indices:
        device = f"{backend}:{index}"
        try:
            free, total = map(whole, read(index))
        except Exception as error:  # a lost device raises on every call
            cards.append(Card(index=index, device=device, trouble=(first_line(error),)))
            continue
        used = total - free
        cards.append(Card(index=index, device=device, total_bytes=total, used_bytes=used, free_bytes=free))
    return Seen(tuple(cards))
