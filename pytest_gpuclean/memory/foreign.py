"""Probes of others, from the hook `pytest_gpuclean_probes`: what they give is looked at before it counts."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator
from typing import Any

from pytest_gpuclean.memory.interface import Probe
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.memory import Reading

_OPTIONAL = ("requested_bytes", "peak_bytes", "total_bytes")
_FIGURES = ("allocated_bytes", "reserved_bytes", *_OPTIONAL)


class ForeignProbe:
    """Passes on what somebody's probe gives, made sure of."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self.source = source_of(probe)

    def read(self) -> Iterator[Reading | Unavailable]:
        """Give its readings; what is none is told as not measured."""
        for answer in self._probe.read():
            if isinstance(answer, Reading):
                yield _checked(answer)
            elif isinstance(answer, Unavailable):
                yield answer
            else:
                yield Unavailable(self.source, f"gave {type(answer).__name__}, which is no Reading")

    def reset_peak(self) -> None:
        """Begin a new peak."""
        self._probe.reset_peak()


def source_of(probe: object) -> str:
    """Name the source of a probe, by its class where it does not say."""
    source = getattr(probe, "source", None)
    return source if isinstance(source, str) else type(probe).__name__


def _checked(reading: Reading) -> Reading:
    """Make sure of whole numbers: it may give NumPy's, or none."""
    if type(reading.allocated_bytes) is int and type(reading.reserved_bytes) is int:
        return reading
    figures: dict[str, Any] = {
        name: value if value is None and name in _OPTIONAL else operator.index(value)
        for name, value in ((name, getattr(reading, name)) for name in _FIGURES)
    }
    return dataclasses.replace(reading, **figures)
