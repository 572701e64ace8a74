"""Small classes that stand in for what the package looks at."""

import importlib.machinery
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from pytest_gpuclean.engine import Engine
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.memory import Reading
from pytest_gpuclean.units import MiB

DEVICE = "fake:0"
SOURCE = "fake"


@contextmanager
def setting_up(engine: Engine, key: Any, name: str, scope: str) -> Iterator[None]:
    """Bracket the setup of a fixture of a wider scope, as the hooks do."""
    engine.begin_setup(key, name, scope)
    try:
        yield
    finally:
        engine.end_setup(key)


class ScriptedProbe:
    """A device whose figures a test sets: `gpu.in_use += 4 * MiB`."""

    def __init__(self, device: str = DEVICE, source: str = SOURCE) -> None:
        self.device, self.source = device, source
        self.in_use = 0
        self.cached = 0
        self.peak: int | None = None
        self.total: int | None = None
        self.is_there = True
        self.error: Exception | None = None
        self.script: list[int] = []
        """Where it is not empty: the figures of the next looks, the last of which stays."""
        self.looks = 0

    def read(self) -> Iterator[Reading | Unavailable]:
        self.looks += 1
        if self.error is not None:
            raise self.error
        if not self.is_there:
            return
        if self.script:
            self.in_use = self.script.pop(0)
        yield Reading(
            device=self.device,
            source=self.source,
            allocated_bytes=self.in_use,
            reserved_bytes=self.in_use + self.cached,
            peak_bytes=self.peak,
            total_bytes=self.total,
        )

    def reset_peak(self) -> None:
        if self.peak is not None:
            self.peak = self.in_use


class Holding:
    """Memory of a scripted device, given back when nobody refers to it any more."""

    def __init__(self, gpu: ScriptedProbe, size_bytes: int = 4 * MiB) -> None:
        self.gpu, self.size_bytes = gpu, size_bytes
        gpu.in_use += size_bytes

    def __del__(self) -> None:
        self.gpu.in_use -= self.size_bytes


def fake_module(name: str, **members: Any) -> ModuleType:
    """Make a module as the import system leaves one behind."""
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__spec__._initializing = False  # type: ignore[attr-defined]
    vars(module).update(members)
    return module


def put(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Let frameworks be loaded, as far as `sys.modules` tells."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)


def remove(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let frameworks not be loaded, as far as `sys.modules` tells."""
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
