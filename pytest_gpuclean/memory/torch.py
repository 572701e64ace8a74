"""torch's caching allocators, on every accelerator that torch knows: cuda, ROCm, xpu, mps and PrivateUse1 devices."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

from pytest_gpuclean.memory.driver import gpu_is_visible
from pytest_gpuclean.memory.interface import first_line, loaded, member, whole
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.memory import Reading

Stats = dict[str, Any]
Figures = tuple[int, int, int | None, int, int]
"""Held, reserved, requested, peak and total, in bytes."""
_NONE: tuple[None, None] = None, None
_OLDER_BACKENDS = ("cuda", "xpu", "mps")
"""What a torch without `torch.accelerator` (before 2.6) can have initialised."""


class TorchProbe:
    """Reads the allocator of each device of the accelerator that is already initialised."""

    source = package = "torch"

    def __init__(self) -> None:
        self._torch: ModuleType | None = None
        self._read_all: Callable[[], Sequence[Reading | Unavailable]] | None = None
        """Reads the accelerator once it is initialised: it stays so, and asking again would cost as much as a read."""
        self._modules_without_accelerator = -1
        """How many modules were loaded when torch had none: one that comes later registers a module."""
        self._last: dict[str, tuple[Figures, Reading]] = {}
        """By device, with its figures: where nothing has changed, the very same reading is given again."""

    def read(self) -> Sequence[Reading | Unavailable]:
        """Give one reading a device; nothing where torch has not used an accelerator yet."""
        if sys.modules.get("torch") is not self._torch:
            self._read_all, self._modules_without_accelerator = None, -1
        if self._read_all is None:
            if len(sys.modules) == self._modules_without_accelerator:
                return ()
            self._read_all = self._find()
        return self._read_all() if self._read_all is not None else ()

    def _read_devices(
        self, devices: Sequence[tuple[int, str]], stats_of: Callable[[int], Stats]
    ) -> Sequence[Reading | Unavailable]:
        found: list[Reading | Unavailable] = []
        for index, name in devices:
            try:
                figures = _figures(stats_of(index))
            except Exception as error:  # a lost device raises on every call
                found.append(Unavailable(f"torch {name}", first_line(error)))
                continue
            known, reading = self._last.get(name, _NONE)
            if reading is None or figures != known:
                reading = _reading(name, figures)
                self._last[name] = figures, reading
            found.append(reading)
        return found

    def _find(self) -> Callable[[], Sequence[Reading | Unavailable]] | None:
        self._torch = torch = loaded("torch")
        if torch is None:
            return None
        if _accelerator_type(torch) is None:
            self._modules_without_accelerator = len(sys.modules)
            return None
        for backend in initialised_backends(torch):
            module = member(torch, backend)
            if backend == "mps":
                return lambda: (_read_mps(module),)
            # Their number is what the process began with: it does not change any more.
            devices = [(index, f"{backend}:{index}") for index in range(module.device_count())]
            return partial(self._read_devices, devices, stats_reader(torch, module))
        return None

    def reset_peak(self) -> None:
        """Begin a new peak on every device of the initialised accelerator."""
        torch = loaded("torch")
        if torch is None:
            return
        for backend in initialised_backends(torch):
            module = member(torch, backend)
            reset = member(module, "reset_peak_memory_stats")
            for index in range(module.device_count()) if reset else ():
                reset(index)


def initialised_backends(torch: ModuleType) -> Iterable[str]:
    """Name the accelerators whose allocator is in use, such as `cuda`, without initialising any."""
    backend = _accelerator_type(torch)
    if backend is None:
        return ()
    names = _OLDER_BACKENDS if backend == "" else (backend,)
    return [name for name in names if _is_initialised(torch, name)]


def accelerator_is_expected(torch: ModuleType) -> bool:
    """Tell whether this torch could use an accelerator here, without asking the driver.

    A CUDA build runs on machines without a GPU too, so the device files decide there: `is_available()` would
    call cuInit, and a process that has done so can no longer fork.
    """
    backend = _accelerator_type(torch)
    if backend is None:
        return False
    if backend in ("", "cuda"):
        built_for_gpu = member(torch, "version", "cuda") or member(torch, "version", "hip")
        return bool(built_for_gpu) and gpu_is_visible()
    module = member(torch, backend)
    try:
        return bool(module is not None and module.is_available())
    except Exception:
        return False


def _accelerator_type(torch: ModuleType) -> str | None:
    """The accelerator's name, None where there is none, and the empty text where torch is too old to say."""
    current = member(torch, "accelerator", "current_accelerator")
    if current is None:
        return ""
    device = current()
    return None if device is None else str(device.type)


def _is_initialised(torch: ModuleType, backend: str) -> bool:
    module = member(torch, backend)
    if module is None:
        return False
    ready = member(torch, "_C", "_accelerator_isAllocatorInitialized")
    if ready is not None and backend != "mps":
        try:
            return ready() is True
        except RuntimeError:  # no accelerator registered, or one whose allocator keeps no statistics
            pass
    if backend == "mps":
        # torch.mps has no is_initialized(); its allocator answers 0 until the first tensor, and asking is harmless.
        return bool(member(torch, "_C", "_mps_is_available") and torch._C._mps_is_available())
    is_initialised = member(module, "is_initialized")
    return is_initialised is not None and is_initialised() is True


def stats_reader(torch: ModuleType, module: ModuleType) -> Callable[[int], Stats]:
    """Return what reads the statistics of one device's allocator, by its index.

    Raises:
        RuntimeError: where this release of torch gives none.
    """
    # One raw read: the public accessors cost six times as much (98 us) and parse the same dict each.
    raw = member(torch, "_C", "_accelerator_getDeviceStats")
    if raw is not None:
        return raw  # type: ignore[no-any-return]
    flat = member(module, "memory_stats")
    if flat is None:
        raise RuntimeError("this release of torch gives no memory statistics for the device")
    return lambda index: _nested(flat(index))


def _nested(flat: dict[str, Any]) -> Stats:
    stats: Stats = {}
    for name, value in flat.items():
        group, _, rest = name.partition(".all.")
        if rest:
            stats.setdefault(group, {}).setdefault("all", {})[rest] = value
    return stats


def _figures(stats: Stats) -> Figures:
    """Give what is allocated, reserved, requested, the peak and the total, in bytes."""
    allocated = stats["allocated_bytes"]["all"]
    held, peak, total = allocated["current"], allocated["peak"], allocated["allocated"]
    reserved = stats["reserved_bytes"]["all"]["current"]
    requested = stats["requested_bytes"]["all"]["current"] if "requested_bytes" in stats else 0
    if not type(held) is type(peak) is type(total) is type(reserved) is type(requested) is int:
        raise TypeError("the allocator's figures are no whole numbers")  # a test's stand-in answers with mocks
    # An allocator that does not keep what was requested leaves it at 0.
    return held, reserved, requested if requested or not held else None, peak, total


def _reading(device: str, figures: Figures) -> Reading:
    held, reserved, requested, peak, total = figures
    return Reading(
        device=device,
        source="torch",
        allocated_bytes=held,
        reserved_bytes=reserved,
        requested_bytes=requested,
        peak_bytes=peak,
        total_bytes=total,
    )


def _read_mps(module: ModuleType) -> Reading | Unavailable:
    try:
        return Reading(
            device="mps",
            source="torch",
            allocated_bytes=whole(module.current_allocated_memory()),
            reserved_bytes=whole(module.driver_allocated_memory()),
        )
    except Exception as error:
        return Unavailable("torch mps", first_line(error))
