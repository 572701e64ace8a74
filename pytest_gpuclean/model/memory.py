"""What is in use at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.units import format_size


class Account(NamedTuple):
    """One allocator: growth is booked and judged for each by itself."""

    device: str
    """`cuda:0`, `simgpu:1`, `mps`, or `cpu` for host memory."""
    source: str
    """Who says what is in use: `torch`, `tensorflow`, `jax`, `cupy`, `heap`, `arrays`."""


HEAP = Account("cpu", "heap")
"""The process heap: cheap to read, but full of what is no tensor. It raises a doubt and never judges."""
ARRAYS = Account("cpu", "arrays")
"""Live tensors and arrays in host memory: dear to read, so only after a doubt. This is what judges."""

Bytes = dict[Account, int]
"""Bytes for each account. An account that is missing was not measured, which is not the same as 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one source says is in use on one device at one moment."""

    device: str
    """`cuda:0`, `simgpu:1`, or `cpu` for host memory."""
    source: str
    """Who says so: `torch`, `tensorflow`, `jax`, `cupy`, `heap`."""
    allocated_bytes: int
    """Held by live objects, as the allocator rounds them."""
    reserved_bytes: int
    """Held by the allocator, live objects and its cache together."""
    requested_bytes: int | None = None
    """Held by live objects, as they asked for it; None where the source does not say."""
    peak_bytes: int | None = None
    """The most that was allocated since the peak was last reset; None where the source does not say."""
    total_bytes: int | None = None
    """Everything that was ever allocated, freed or not; None where the source does not say."""

    @property
    def account(self) -> Account:
        """The account that this reading belongs to."""
        return Account(self.device, self.source)

    @property
    def held_bytes(self) -> int:
        """What is judged: what live objects asked for, without the allocator's rounding where it is known.

        A block that an allocator could not split counts whole in `allocated_bytes`, up to 1 MiB too much each.
        """
        return self.allocated_bytes if self.requested_bytes is None else self.requested_bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every reading of one moment, and what could not be read."""

    readings: tuple[Reading, ...] = ()
    unavailable: tuple[Unavailable, ...] = ()

    def allocated_bytes(self, device: str) -> int | Unavailable:
        """Sum what live objects hold on a device, over the frameworks that are in use.

        Args:
            device: such as `cuda:0` or `cpu`.
        """
        found = [reading.allocated_bytes for reading in self.readings if reading.device == device]
        if found:
            return sum(found)
        reasons = "; ".join(f"{gap.source}: {gap.reason}" for gap in self.unavailable)
        return Unavailable(device, reasons or "no framework has used this device yet")

    def __str__(self) -> str:
        lines = [
            f"{reading.device} {reading.source}: {format_size(reading.allocated_bytes)} allocated, "
            f"{format_size(reading.reserved_bytes)} reserved"
            for reading in self.readings
        ]
        lines += [f"{gap.source}: not measured, {gap.reason}" for gap in self.unavailable]
        return "\n".join(lines) or "nothing in use"


class FixtureHolding(NamedTuple):
    """What a live fixture of a wider scope owns on one device."""

    name: str
    scope: str
    device: str
    held_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What this process holds at one moment, and whose it is as far as that is known."""

    snapshot: Snapshot
    by_test: Mapping[str, int] | None = None
    """By device, what the test holds itself; None where no window is open."""
    by_fixtures: tuple[FixtureHolding, ...] = ()
