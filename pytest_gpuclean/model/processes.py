"""What was left running, and what became of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pytest_gpuclean.model import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftProcess:
    """A process that was left behind, and what became of it."""

    pid: int
    name: str
    """Its family (`TensorBoard`), or a short label (`python train.py`)."""
    command: str
    """Its command line, shortened, without control characters."""
    started_by: str = ""
    """The test or fixture that started it; empty where that is not known."""
    ended_by: str = ""
    """`SIGINT`, `SIGTERM`, `SIGKILL`, `itself` where it went without a signal, `shut down`; empty where it lives."""
    seconds: float = 0.0
    """From the first signal to its end."""
    ports: tuple[int, ...] = ()
    """TCP ports on which it listened."""
    gpu_bytes: int | None = None
    """GPU memory that it held; None where that was not measured."""
    reason: str = ""
    """Why it still lives or was left alone; which port somebody else still holds; what was cleared away after it."""
    is_spared: bool = False
    """Whether it was not signalled at all: it is left alone, or could not be proved to be the run's own."""

    @property
    def is_alive(self) -> bool:
        """Whether it was still there at the end."""
        return not self.ended_by

    @property
    def is_unkillable(self) -> bool:
        """Whether everything was tried, and it is still there."""
        return self.is_alive and not self.is_spared

    def to_wire(self) -> Wire:
        """Write it as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Wire) -> LeftProcess:
        """Read what `to_wire` wrote."""
        return cls(**{**wire, "ports": tuple(wire["ports"])})
