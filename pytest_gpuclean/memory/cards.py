"""What a driver says of a card and of who uses it. Frozen data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pytest_gpuclean.model import Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One NVIDIA card, or one MIG instance of a card."""

    index: int
    """As NVML counts the cards, which is by PCI bus; of an instance, that of its card."""
    uuid: str = ""
    """`GPU-...` or `MIG-...`; empty where it could not be read."""
    name: str = ""
    total_bytes: int | None = None
    used_bytes: int | None = None
    """By everybody together; None where the driver does not say, as on boards that share the host's memory."""
    free_bytes: int | None = None
    parent_uuid: str = ""
    """Of a MIG instance: its card."""
    slot: int | None = None
    """Of a MIG instance: its number on the card."""
    legacy_uuid: str = ""
    """Of a MIG instance: `MIG-GPU-.../1/0`, as drivers before 470 named it and CUDA still understands."""
    is_partitioned: bool = False
    """Whether MIG is on, so that CUDA sees the instances and not the card."""
    is_barred: bool = False
    """Whether this process may not use it (cgroups, containers): CUDA counts without it."""
    device: str = ""
    """`cuda:0`, as frameworks name it; empty where that was not asked, or it is not visible to CUDA."""
    trouble: tuple[str, ...] = ()
    """What of it could not be read, a sentence each."""

    @property
    def is_mig(self) -> bool:
        """Whether it is an instance of a card."""
        return self.slot is not None

    @property
    def key(self) -> tuple[int, int | None, str]:
        """What tells it from the others of the machine."""
        return self.index, self.slot, self.uuid

    @property
    def label(self) -> str:
        """What it is called in a message: `cuda:0`, or `GPU 3` where CUDA does not see it."""
        return self.device or (f"GPU {self.index} MIG {self.slot}" if self.is_mig else f"GPU {self.index}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CardUser:
    """A process that uses a card."""

    pid: int
    used_bytes: int | None
    """None where the driver does not say (WSL, Windows' WDDM, some MIG set-ups). Never 0 for that."""
    kind: str = "compute"
    """`compute`, `graphics` or `compute+graphics`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardUse:
    """A card and its users at one moment."""

    card: Card
    users: tuple[CardUser, ...] | Unavailable


Entries = Iterable[tuple[int, int | None]]
"""Process number and bytes, as the driver lists them."""


def merged(compute: Entries, shared: Entries, graphics: Entries) -> list[CardUser]:
    """Make one entry a process of what the driver lists by kind.

    A process may be in several lists, with the same figure in each.

    Args:
        compute: what computes.
        shared: what computes through a server that many processes share (MPS).
        graphics: what draws.
    """
    computes, shares, draws = map(_summed, (compute, shared, graphics))
    users = []
    for pid in dict.fromkeys([*computes, *shares, *draws]):
        figures = [figure for found in (computes, shares, draws) if (figure := found.get(pid)) is not None]
        kinds = [*["compute"] * (pid in computes or pid in shares), *["graphics"] * (pid in draws)]
        users.append(CardUser(pid=pid, used_bytes=max(figures, default=None), kind="+".join(kinds)))
    return users


def _summed(entries: Entries) -> dict[int, int | None]:
    """Add up what a process has on the instances of one card; with a part unknown the sum is."""
    sums: dict[int, int | None] = {}
    for pid, size in entries:
        before = sums.get(pid, 0)
        sums[pid] = None if size is None or before is None else before + size
    return sums
