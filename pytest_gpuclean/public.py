"""Where the public names are; their types stand in `__init__.pyi`."""

from __future__ import annotations

import importlib
from typing import Any

HOMES = {
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


def look_up(name: str) -> Any:
    """Give what a public name stands for.

    Raises:
        AttributeError: where it is none.
    """
    if name == "__all__":
        return sorted(HOMES)
    home = HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__package__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__package__}.{home}"), name)
