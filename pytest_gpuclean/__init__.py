"""Give GPU memory back between tests, and fail the tests that leak it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_gpuclean.cleanup.interface import Cleaner as Cleaner
    from pytest_gpuclean.cleanup.interface import Occasion as Occasion
    from pytest_gpuclean.cleanup.interface import Skip as Skip
    from pytest_gpuclean.errors import GpuCleanWarning as GpuCleanWarning
    from pytest_gpuclean.memory.interface import Probe as Probe
    from pytest_gpuclean.model import CleanupResult as CleanupResult
    from pytest_gpuclean.model import Leak as Leak
    from pytest_gpuclean.model import LeftProcess as LeftProcess
    from pytest_gpuclean.model import Reading as Reading
    from pytest_gpuclean.model import Snapshot as Snapshot
    from pytest_gpuclean.model import StepResult as StepResult
    from pytest_gpuclean.model import Unavailable as Unavailable
    from pytest_gpuclean.processes.families.interface import Family as Family
    from pytest_gpuclean.processes.families.interface import Kind as Kind

_HOMES = {
    "Cleaner": "cleanup.interface",
    "Occasion": "cleanup.interface",
    "Skip": "cleanup.interface",
    "GpuCleanWarning": "errors",
    "Probe": "memory.interface",
    "CleanupResult": "model",
    "Family": "processes.families.interface",
    "Kind": "processes.families.interface",
    "Leak": "model",
    "LeftProcess": "model",
    "Reading": "model",
    "Snapshot": "model",
    "StepResult": "model",
    "Unavailable": "model",
}

__all__ = [
    "Cleaner",
    "CleanupResult",
    "Family",
    "GpuCleanWarning",
    "Kind",
    "Leak",
    "LeftProcess",
    "Occasion",
    "Probe",
    "Reading",
    "Skip",
    "Snapshot",
    "StepResult",
    "Unavailable",
]


def __getattr__(name: str) -> Any:
    # Resolved on first use: pytest imports this package in every run, also where it is off.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
