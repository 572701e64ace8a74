"""Scripts what happens to the simulated devices."""

import ctypes
from pathlib import Path
from typing import TypeVar

Number = TypeVar("Number", int, float)

_library: ctypes.CDLL | None = None


def attach(path: Path) -> None:
    """Talk to the library that torch has just loaded."""
    global _library
    library = ctypes.CDLL(str(path))
    number, flag = ctypes.c_int64, ctypes.c_bool
    for name, result, arguments in (
        ("device_count", number, ()),
        ("init", flag, ()),
        ("is_initialized", flag, ()),
        ("is_in_bad_fork", flag, ()),
        ("init_count", number, ()),
        ("synchronize_count", number, ()),
        ("empty_cache_count", number, ()),
        ("set_capacity", None, (number, number)),
        ("hold", None, (number, number)),
        ("lose", None, (number, flag)),
        ("revive", None, (number,)),
        ("late_free", None, (number, number)),
        ("advance", None, (number,)),
        ("reset", None, ()),
    ):
        function = getattr(library, f"simgpu_{name}")
        function.restype = result
        function.argtypes = arguments
    _library = library


def set_capacity(device: int, capacity_bytes: int) -> None:
    """Set how much memory a device has, 8 GiB at first. What is allocated stays."""
    _call("set_capacity", _checked(device), _not_negative(capacity_bytes))


def hold(device: int, held_bytes: int) -> None:
    """Let someone else, another process say, hold that much of a device's memory."""
    _call("hold", _checked(device), _not_negative(held_bytes))


def lose(device: int, *, with_stats: bool = True) -> None:
    """Let every call that reaches the device raise `torch.AcceleratorError`, until `revive`.

    Args:
        device: its index.
        with_stats: reading the allocator's statistics raises as well. CUDA's stay readable, as
            they are the process's own books: pass False for that.
    """
    _call("lose", _checked(device), with_stats)


def revive(device: int) -> None:
    """Bring a lost device back, with its memory as it was."""
    _call("revive", _checked(device))


def late_free(device: int, milliseconds: float) -> None:
    """Let blocks freed from now on stay counted as allocated for that long; 0 ends it."""
    _call("late_free", _checked(device), round(_not_negative(milliseconds) * 1000))


def advance(milliseconds: float) -> None:
    """Move the simulator's clock forward, so that nobody has to sleep for a late free."""
    _call("advance", round(_not_negative(milliseconds) * 1000))


def reset() -> None:
    """Undo the script: capacity, held, lost, late frees, and the counts of calls.

    Tensors, cached memory, statistics and the fact of being initialised stay.
    """
    _call("reset")


def init_count() -> int:
    """How often the devices were initialised in this process: 0 or 1."""
    return int(_call("init_count"))


def synchronize_count() -> int:
    """How often anyone waited for a device or a stream since `reset`."""
    return int(_call("synchronize_count"))


def empty_cache_count() -> int:
    """How often the allocator's cache was emptied since `reset`."""
    return int(_call("empty_cache_count"))


def device_count() -> int:
    """How many devices there are."""
    return int(_call("device_count"))


def initialize() -> bool:
    """Initialise the devices; False in a process forked after that."""
    return bool(_call("init"))


def is_initialized() -> bool:
    """Whether the devices, and so their allocator, are initialised."""
    return bool(_call("is_initialized"))


def is_in_bad_fork() -> bool:
    """Whether this process was forked from one that had initialised the devices."""
    return bool(_call("is_in_bad_fork"))


def _call(name: str, *arguments: int) -> int | bool:
    if _library is None:
        raise RuntimeError("simgpu is not loaded: call simgpu.load() first")
    result: int | bool = getattr(_library, f"simgpu_{name}")(*arguments)
    return result


def _checked(device: int) -> int:
    if not 0 <= device < device_count():
        raise IndexError(f"no simgpu:{device}: there are {device_count()} devices")
    return device


def _not_negative(value: Number) -> Number:
    if value < 0:
        raise ValueError(f"{value} is negative")
    return value
