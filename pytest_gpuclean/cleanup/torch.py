"""torch: what its libraries cache beside live tensors, and the allocator's free blocks."""

from __future__ import annotations

import sys
from types import ModuleType

from pytest_gpuclean.cleanup.interface import Occasion, Skip
from pytest_gpuclean.cleanup.lookup import call, find, loaded_module


class TorchLibraryCleaner:
    """cuBLAS workspaces, the autocast weight cache and cuFFT plans: they look like live memory."""

    name = "torch libraries"
    calls_driver = True
    is_measured = False  # the allocator caches what it gets back, and the next step gives it to the driver

    def clean(self, occasion: Occasion) -> str | Skip:
        """Clear them where torch is loaded and memory moved."""
        torch = loaded_module("torch")
        if torch is None:
            return Skip("torch is not loaded")
        if not (occasion.moved or occasion.thorough or (occasion.comprehensive and occasion.allocated)):
            return Skip("no memory moved")
        done = []
        if not find(torch, "is_autocast_enabled") or not torch.is_autocast_enabled():
            done += call("autocast cache", find(torch, "clear_autocast_cache"))
        is_initialized = find(torch, "cuda", "is_initialized")
        if is_initialized is not None and is_initialized() is True:
            # Private, and the only way: 8 MiB after one Linear, 32 MiB on Hopper, counted as allocated.
            done += call("cuBLAS workspaces", find(torch, "_C", "_cuda_clearCublasWorkspaces"))
            done += _clear_fft_plans(torch)
        return ", ".join(done) or Skip("nothing to clear")


class TorchCompilerCleaner:
    """Dynamo, Inductor and CUDA graph trees. Every compiled function compiles anew after it."""

    name = "torch.compile"

    def __init__(self) -> None:
        self._compiled_at_reset: object = None

    def clean(self, occasion: Occasion) -> str | Skip:
        """Reset them at the end of a module, by hand, or where a leak is still suspected."""
        torch = loaded_module("torch")
        # reset() imports Dynamo (1 s, 22 MiB) where nothing has used it.
        if torch is None or loaded_module("torch._dynamo") is None:
            return Skip("torch.compile is not in use")
        if not occasion.thorough:
            return Skip("kept until the module ends: tests would compile anew")
        if self._compiled_at_reset is not None and _frames_seen() == self._compiled_at_reset:
            return Skip("nothing was compiled since the last reset")
        done = call("compiled code", find(torch, "compiler", "reset"))
        self._compiled_at_reset = _frames_seen()
        return ", ".join(done) or Skip("no reset in this torch")


class TorchCacheCleaner:
    """The allocator's free blocks, on the device and in pinned host memory."""

    name = "torch cache"
    calls_driver = True

    def clean(self, occasion: Occasion) -> str | Skip:
        """Give them back to the driver where torch uses a device."""
        torch = loaded_module("torch")
        if torch is None:
            return Skip("torch is not loaded")
        if not (occasion.moved or occasion.thorough or (occasion.comprehensive and occasion.allocated)):
            return Skip("no memory moved")
        if _accelerator_is_ready(torch):
            done = call("device cache", find(torch, "accelerator", "memory", "empty_cache"))
            done += call("pinned host cache", find(torch, "accelerator", "memory", "empty_host_cache"))
        else:
            done = []
            for backend in ("cuda", "xpu"):
                is_initialized = find(torch, backend, "is_initialized")
                if is_initialized is not None and is_initialized() is True:
                    done += call(f"{backend} cache", find(torch, backend, "empty_cache"))
        if sys.platform == "darwin" and torch.backends.mps.is_available():
            done += call("mps cache", find(torch, "mps", "empty_cache"))
        return ", ".join(done) or Skip("no device in use")


def _frames_seen() -> object:
    """How many frames Dynamo has looked at so far; None where it does not say."""
    utils = loaded_module("torch._dynamo.utils")
    counters = find(utils, "counters") if utils is not None else None
    return counters["frames"]["total"] if counters is not None and "frames" in counters else None


def _accelerator_is_ready(torch: ModuleType) -> bool:
    ready = find(torch, "_C", "_accelerator_isAllocatorInitialized")
    if ready is None or find(torch, "accelerator", "memory", "empty_cache") is None:
        return False
    try:
        return ready() is True
    except RuntimeError:  # no accelerator registered
        return False


def _clear_fft_plans(torch: ModuleType) -> list[str]:
    plans = torch.backends.cuda.cufft_plan_cache
    cleared = 0
    for index in range(torch.cuda.device_count()):
        if plans[index].size:
            plans[index].clear()
            cleared += 1
    return [f"cuFFT plans on {cleared} devices"] if cleared else []


class SynchronizeCleaner:
    """The work that devices still have queued: what it uses can only be freed afterwards."""

    name = "synchronize"
    calls_driver = True
    is_measured = False

    def __init__(self) -> None:
        self._used: set[int] = set()

    def clean(self, occasion: Occasion) -> str | Skip:
        """Wait for each device on which torch has ever allocated, where the window has used one."""
        torch = loaded_module("torch")
        if torch is None:
            return Skip("torch is not loaded")
        if not (occasion.moved or occasion.thorough or (occasion.comprehensive and occasion.allocated)):
            return Skip("no memory moved")
        if not _accelerator_is_ready(torch):
            return Skip("no device in use")
        # Never without an index: that asks for the current device, which initialises one.
        others = set(range(torch.accelerator.device_count())) - self._used
        if occasion.unused and others:
            device = torch.accelerator.current_accelerator()
            others = {index for index in others if f"{device}:{index}" not in occasion.unused}
        self._used |= {index for index in others if _is_used(torch, index)}  # and what was used once stays so
        for index in sorted(self._used):
            torch.accelerator.synchronize(index)
        return f"{len(self._used)} device{'' if len(self._used) == 1 else 's'}"


def _is_used(torch: ModuleType, index: int) -> bool:
    """Whether anything was ever allocated there: to wait for another would bring it up, at hundreds of MB."""
    try:
        stats = find(torch, "_C", "_accelerator_getDeviceStats")
        return int(stats(index)["allocated_bytes"]["all"]["allocated"]) > 0
    except Exception:  # a lost device may raise even here; one that was never used keeps its books
        return True
