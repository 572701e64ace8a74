"""Giving memory back: one cleaner a family, in the order in which they run."""

from __future__ import annotations

from pytest_gpuclean.cleanup.frameworks import CupyCleaner, JaxCleaner, TensorFlowCleaner
from pytest_gpuclean.cleanup.garbage import GarbageCleaner
from pytest_gpuclean.cleanup.host import HeapTrimCleaner
from pytest_gpuclean.cleanup.interface import Cleaner
from pytest_gpuclean.cleanup.torch import (
    SynchronizeCleaner,
    TorchCacheCleaner,
    TorchCompilerCleaner,
    TorchLibraryCleaner,
)

# What lets go of memory comes first, then the collector, then the caches that it has fallen into.
CLEANERS: tuple[type[Cleaner], ...] = (
    TensorFlowCleaner,
    TorchCompilerCleaner,
    JaxCleaner,
    GarbageCleaner,
    SynchronizeCleaner,
    TorchLibraryCleaner,
    TorchCacheCleaner,
    CupyCleaner,
    HeapTrimCleaner,
)
