"""What markers and options together mean for one test."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.model.cleanup import Level
from pytest_gpuclean.plugin.marks import Said, said_on
from pytest_gpuclean.plugin.options import EVERY, LEVELS
from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.units import parse_choice, parse_date, parse_size

_MARKS = ("gpu_clean", "gpu_leak", "gpu_limit")


@dataclass(frozen=True, slots=True)
class Allowance:
    """A leak that is allowed for a reason."""

    reason: str
    until: dt.date | None = None
    """The last day on which it is."""

    def holds_on(self, day: dt.date) -> bool:
        """Whether it is still in force."""
        return self.until is None or day <= self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the plugin does with one test, or with what ends together with a class or a module."""

    level: Level | None
    every: str
    judges: bool
    threshold_bytes: int
    peak_limit_bytes: int | None
    allowance: Allowance | None = None
    only_observed: bool = False
    """Whether it is judged for the report alone: nothing fails, nothing is stopped."""


def plan_from(settings: Settings) -> Plan:
    """Make the plan of everything that no marker says otherwise of."""
    return Plan(
        level=settings.level,
        every=settings.every,
        judges=not settings.silenced and settings.judges and settings.leak_mode != "off",
        threshold_bytes=settings.threshold_bytes,
        peak_limit_bytes=settings.peak_limit_bytes,
        only_observed=settings.only_observes,
    )


def plan_of(node: pytest.Item | pytest.Collector, settings: Settings) -> Plan:
    """Make the plan of a test, or of a class or module, by its markers; the closest one that says a thing wins.

    Raises:
        pytest.UsageError: where a marker does not parse, naming it and the node.
    """
    base = plan_from(settings)
    said = said_on(node, _MARKS)
    if not said:
        return base
    try:
        return _merge(base, said, settings)
    except InputError as error:
        raise pytest.UsageError(str(error)) from None


def _merge(base: Plan, said: Said, settings: Settings) -> Plan:
    def get(marker: str, name: str) -> tuple[Any, str]:
        return said.get((marker, name), (None, ""))

    level, level_source = get("gpu_clean", "level")
    every, every_source = get("gpu_clean", "every")
    threshold, threshold_source = get("gpu_leak", "threshold")
    peak, peak_source = get("gpu_limit", "peak")
    marks = {marker for marker, _ in said}
    gate_wanted = settings.leak_mode != "off" and bool(marks & {"gpu_clean", "gpu_leak"})
    if level is not None:
        level = parse_choice(level, LEVELS, f"{level_source}: level")
    return Plan(
        level=level or base.level,
        every=parse_choice(every, EVERY, f"{every_source}: every") if every is not None else base.every,
        judges=base.judges or gate_wanted,
        threshold_bytes=(
            base.threshold_bytes if threshold is None else parse_size(threshold, f"{threshold_source}: threshold")
        ),
        peak_limit_bytes=base.peak_limit_bytes if peak is None else parse_size(peak, f"{peak_source}: peak"),
        allowance=_allowance(*get("gpu_leak", "allow"), *get("gpu_leak", "until")),
        only_observed=base.only_observed and not gate_wanted,
    )


def _allowance(reason: Any, reason_source: str, until: Any, until_source: str) -> Allowance | None:
    if reason is None:
        if until is not None:
            raise InputError(f"{until_source}: until={until!r} needs the reason: allow='why'")
        return None
    if not isinstance(reason, str) or not reason.strip():
        raise InputError(f"{reason_source}: allow={reason!r} is no reason; write a text that says why")
    return Allowance(reason.strip(), None if until is None else parse_date(until, f"{until_source}: until"))
