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
    from pytest_gpuclean.model import Unavailable as Unavailable
    from pytest_gpuclean.model.cleanup import CleanupResult as CleanupResult
    from pytest_gpuclean.model.cleanup import StepResult as StepResult
    from pytest_gpuclean.model.leaks import Leak as Leak
    from pytest_gpuclean.model.memory import Reading as Reading
    from pytest_gpuclean.model.memory import Snapshot as Snapshot
    from pytest_gpuclean.model.processes import LeftProcess as LeftProcess
    from pytest_gpuclean.processes.families.interface import Family as Family
    from pytest_gpuclean.processes.families.interface import Kind as Kind
    from pytest_gpuclean.scripts.cleanups import cleanup_between_runs as cleanup_between_runs
    from pytest_gpuclean.scripts.cleanups import cleanup_training_resources as cleanup_training_resources
    from pytest_gpuclean.scripts.cleanups import comprehensive_cleanup as comprehensive_cleanup
    from pytest_gpuclean.scripts.cleanups import quick_cleanup as quick_cleanup
    from pytest_gpuclean.scripts.killing import force_kill_processes as force_kill_processes
    from pytest_gpuclean.scripts.killing import kill_python_experiment_processes as kill_python_experiment_processes
    from pytest_gpuclean.scripts.killing import kill_ros2_processes as kill_ros2_processes
    from pytest_gpuclean.scripts.memory import clear_gpu as clear_gpu
    from pytest_gpuclean.scripts.memory import clear_gpu_memory as clear_gpu_memory
    from pytest_gpuclean.scripts.memory import clear_python_memory as clear_python_memory
    from pytest_gpuclean.scripts.memory import clear_system_cache as clear_system_cache
    from pytest_gpuclean.scripts.memory import get_memory_usage as get_memory_usage
    from pytest_gpuclean.scripts.memory import on_cleanup as on_cleanup
    from pytest_gpuclean.scripts.memory import snapshot as snapshot
    from pytest_gpuclean.scripts.watching import watch as watch

_HOMES = {
    "Cleaner": "cleanup.interface",
    "Occasion": "cleanup.interface",
    "Skip": "cleanup.interface",
    "GpuCleanWarning": "errors",
    "Probe": "memory.interface",
    "CleanupResult": "model.cleanup",
    "Family": "processes.families.interface",
    "Kind": "processes.families.interface",
    "Leak": "model.leaks",
    "LeftProcess": "model.processes",
    "Reading": "model.memory",
    "Snapshot": "model.memory",
    "StepResult": "model.cleanup",
    "Unavailable": "model",
    "cleanup_between_runs": "scripts.cleanups",
    "cleanup_training_resources": "scripts.cleanups",
    "comprehensive_cleanup": "scripts.cleanups",
    "quick_cleanup": "scripts.cleanups",
    "force_kill_processes": "scripts.killing",
    "kill_python_experiment_processes": "scripts.killing",
    "kill_ros2_processes": "scripts.killing",
    "clear_gpu": "scripts.memory",
    "clear_gpu_memory": "scripts.memory",
    "clear_python_memory": "scripts.memory",
    "clear_system_cache": "scripts.memory",
    "get_memory_usage": "scripts.memory",
    "on_cleanup": "scripts.memory",
    "snapshot": "scripts.memory",
    "watch": "scripts.watching",
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
    "cleanup_between_runs",
    "cleanup_training_resources",
    "clear_gpu",
    "clear_gpu_memory",
    "clear_python_memory",
    "clear_system_cache",
    "comprehensive_cleanup",
    "force_kill_processes",
    "get_memory_usage",
    "kill_python_experiment_processes",
    "kill_ros2_processes",
    "on_cleanup",
    "quick_cleanup",
    "snapshot",
    "watch",
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
