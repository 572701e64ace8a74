"""What a cleanup did, step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pytest_gpuclean.model import Wire
from pytest_gpuclean.units import format_seconds, format_size

Level = Literal["quick", "comprehensive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step of a cleanup did."""

    name: str
    status: Literal["done", "skipped", "failed"]
    detail: str = ""
    """What was done, or the reason why it was not."""
    seconds: float = 0.0
    given_back: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Bytes given back by device, live objects and reserved caches together; 0 is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupResult:
    """What a whole cleanup did, step by step."""

    level: Level
    steps: tuple[StepResult, ...] = ()
    before: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Bytes in use by device when it began, live objects and reserved caches together."""
    after: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """The same when it ended."""
    seconds: float = 0.0

    @property
    def given_back_bytes(self) -> int:
        """What all devices together have back."""
        return sum(max(0, size - self.after.get(device, 0)) for device, size in self.before.items())

    @property
    def failed(self) -> tuple[StepResult, ...]:
        """The steps that failed, each with its reason in `detail`."""
        return tuple(step for step in self.steps if step.status == "failed")

    @property
    def problems(self) -> list[str]:
        """What to tell of them."""
        return [f"{step.name} failed: {step.detail}" for step in self.failed]

    @classmethod
    def from_wire(cls, wire: Wire) -> CleanupResult:
        """Read what is in the wire form of a record."""
        return cls(**{**wire, "steps": tuple(StepResult(**step) for step in wire["steps"])})

    def __str__(self) -> str:
        """One line a step that did something or failed."""
        return "\n".join(_step_line(step) for step in self.steps if step.status != "skipped")


def _step_line(step: StepResult) -> str:
    freed = ", ".join(f"{device} -{format_size(size)}" for device, size in step.given_back.items())
    parts = [step.detail, freed, format_seconds(step.seconds)]
    return f"{step.name}: {'failed: ' if step.status == 'failed' else ''}{', '.join(filter(None, parts))}"
