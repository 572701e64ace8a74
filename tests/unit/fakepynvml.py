"""A stand-in for nvidia-ml-py's module, whose cards, users, errors and delays a test sets."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from pytest_gpuclean.memory.nvml import Nvml
from pytest_gpuclean.memory.nvml_calls import NvmlCalls
from pytest_gpuclean.units import GiB

TEXTS = {3: "Not Supported", 4: "Insufficient Permissions", 9: "Driver Not Loaded", 15: "GPU is lost"}
CODES = (*range(1, 31), 999)
"""Every error that NVML knows."""
CALLS = (
    "nvmlInit",
    "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
)
"""Every function that is called."""


class NVMLError(Exception):
    """As nvidia-ml-py raises it: its number is `value`."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __str__(self) -> str:
        return TEXTS.get(self.value, f"Unknown Error {self.value}")


@dataclass
class Part:
    """A card, or an instance of one."""

    uuid: str
    name: str = "Fake H100"
    total: int = 80 * GiB
    used: int = 0
    users: dict[str, list[tuple[int, int | None]]] = field(default_factory=dict)
    """By list (`Compute`, `Graphics`, `MPSCompute`): process number and bytes."""
    mig: int | None = None
    slots: dict[int, "Part"] = field(default_factory=dict)
    ids: tuple[int, int] = (1, 0)


class FakePynvml:
    """The module. Every attribute that is called is one of nvidia-ml-py's functions."""

    def __init__(self, *parts: Part) -> None:
        self.parts = list(parts)
        self.errors: dict[str, int | Exception] = {}
        self.delays: dict[str, float] = {}
        self.missing: set[str] = set()
        self.calls: list[str] = []
        self.initialised = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        does = getattr(type(self), f"_{name}", None)
        if does is None or name in self.missing:
            raise AttributeError(name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append(name)
            if name in self.delays:
                time.sleep(self.delays[name])
            error = self.errors.get(name)
            if error is not None:
                raise NVMLError(error) if isinstance(error, int) else error
            if not self.initialised and name != "nvmlInit":
                raise NVMLError(1)
            return does(self, *arguments, **options)

        return call

    def _nvmlInit(self) -> None:
        self.initialised += 1

    def _nvmlDeviceGetCount(self) -> int:
        return len(self.parts)

    def _nvmlDeviceGetHandleByIndex(self, index: int) -> Part:
        if index >= len(self.parts):
            raise NVMLError(2)
        return self.parts[index]

    def _nvmlDeviceGetUUID(self, part: Part) -> str:
        return part.uuid

    def _nvmlDeviceGetName(self, part: Part) -> str:
        return part.name

    def _nvmlDeviceGetMemoryInfo(self, part: Part, version: int | None = None) -> SimpleNamespace:
        return SimpleNamespace(total=part.total, used=part.used, free=part.total - part.used)

    def _nvmlDeviceGetMigMode(self, part: Part) -> list[int]:
        if part.mig is None:
            raise NVMLError(3)
        return [part.mig, part.mig]

    def _nvmlDeviceGetMaxMigDeviceCount(self, part: Part) -> int:
        return 7

    def _nvmlDeviceGetMigDeviceHandleByIndex(self, part: Part, slot: int) -> Part:
        if slot not in part.slots:
            raise NVMLError(6)
        return part.slots[slot]

    def _nvmlDeviceGetGpuInstanceId(self, part: Part) -> int:
        return part.ids[0]

    def _nvmlDeviceGetComputeInstanceId(self, part: Part) -> int:
        return part.ids[1]

    def _nvmlDeviceGetComputeRunningProcesses(self, part: Part) -> list[SimpleNamespace]:
        return _listed(part, "Compute")

    def _nvmlDeviceGetGraphicsRunningProcesses(self, part: Part) -> list[SimpleNamespace]:
        return _listed(part, "Graphics")

    def _nvmlDeviceGetMPSComputeRunningProcesses(self, part: Part) -> list[SimpleNamespace]:
        return _listed(part, "MPSCompute")

    def _nvmlDeviceGetComputeRunningProcesses_v2(self, part: Part) -> list[SimpleNamespace]:
        return _listed(part, "Compute")


def _listed(part: Part, kind: str) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in part.users.get(kind, ())]


def nvml_of(module: Any, *, limit_seconds: float = 2.0, **environ: str) -> Nvml:
    """The plugin's view of such a world, with CUDA's variables as they are given."""
    calls = NvmlCalls(lambda: module, limit_seconds=limit_seconds, first_limit_seconds=limit_seconds)
    return Nvml(calls, environ)
