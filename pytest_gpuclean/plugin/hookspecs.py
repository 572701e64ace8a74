"""Hooks for other plugins and for conftest files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_gpuclean.cleanup.interface import Cleaner
    from pytest_gpuclean.memory.interface import Probe
    from pytest_gpuclean.model.leaks import Leak
    from pytest_gpuclean.processes.families.interface import Family


@pytest.hookspec
def pytest_gpuclean_probes(config: pytest.Config) -> Sequence[Probe]:  # type: ignore[empty-body]
    """Give sources of memory figures beside the known ones; asked once, when the plugin comes up."""


@pytest.hookspec
def pytest_gpuclean_cleaners(config: pytest.Config) -> Sequence[Cleaner]:  # type: ignore[empty-body]
    """Give steps that run first in every cleanup; asked once, when the plugin comes up."""


@pytest.hookspec
def pytest_gpuclean_process_families(config: pytest.Config) -> Sequence[Family]:  # type: ignore[empty-body]
    """Give kinds of processes beside the known ones: how each is stopped, or why it is left alone; asked once."""


@pytest.hookspec(firstresult=True)
def pytest_gpuclean_leak(item: pytest.Item, leak: Leak) -> str | None:
    """Look at a leak before it is told. Return a reason to allow it, or None."""


def declare(manager: pytest.PytestPluginManager) -> None:
    """Declare these hooks, once."""
    caller = getattr(manager.hook, pytest_gpuclean_leak.__name__, None)
    if caller is None or not caller.has_spec():
        manager.add_hookspecs(sys.modules[__name__])
