"""What `torch.simgpu` is: the names that `torch.cuda` has, over the simulated devices."""

import os
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch

from . import control

Device: TypeAlias = torch.device | str | int | None
Event = torch.Event


class Stream(torch.Stream):
    """A stream of a simulated device; all work on it is done when its call returns."""

    def __new__(cls, device: Device = None, priority: int = 0, **rest: Any) -> "Stream":
        if not rest:  # torch itself rebuilds a stream from its id, which names the device
            rest["device"] = torch.device("simgpu", _index(device))
        stream: Stream = super().__new__(cls, priority=priority, **rest)
        return stream


class device:  # noqa: N801 - torch.cuda's name
    """Make a device the current one for a while."""

    def __init__(self, device: Device) -> None:
        self.index = _index(device)
        self.before = -1

    def __enter__(self) -> "device":
        self.before = torch._C._accelerator_exchangeDevice(self.index)
        return self

    def __exit__(self, *error: object) -> None:
        torch._C._accelerator_maybeExchangeDevice(self.before)


def is_available() -> bool:
    """Whether there is a device; initialises nothing."""
    return control.device_count() > 0


def is_initialized() -> bool:
    """Whether this process has initialised the devices."""
    return control.is_initialized() and not _is_in_bad_fork()


def init() -> None:
    """Initialise the devices."""
    torch.empty(0, device="simgpu")  # by torch's own path, which keeps a flag besides ours


def _lazy_init() -> None:
    """Called by torch before it first uses a device."""
    if not control.initialize():
        raise RuntimeError(
            "Cannot re-initialize simgpu in forked subprocess. To use simgpu with "
            "multiprocessing, you must use the 'spawn' start method"
        )
    while _queued_calls:
        _queued_calls.pop(0)[0]()


_queued_calls: list[tuple[Callable[[], object], list[str]]] = []
"""Called when the devices are initialised, each with the stack that has asked for it."""


def _lazy_call(call: Callable[[], object]) -> None:
    """Call something as soon as the devices are initialised, as torch.cuda's seeding does."""
    if is_initialized():
        call()
    else:
        _queued_calls.append((call, traceback.format_stack()))


def _is_in_bad_fork() -> bool:
    return control.is_in_bad_fork()


def device_count() -> int:
    """How many devices there are; initialises nothing."""
    return control.device_count()


def current_device() -> int:
    """The index of the current device."""
    index: int = torch._C._accelerator_getDeviceIndex()
    return index


def set_device(device: Device) -> None:
    """Make a device the current one."""
    torch.accelerator.set_device_index(_index(device))


def get_device_name(device: Device = None) -> str:
    """The name of a device."""
    return f"Simulated accelerator {_index(device)}"


def synchronize(device: Device = None) -> None:
    """Wait for a device."""
    init()
    torch.accelerator.synchronize(_index(device))


def current_stream(device: Device = None) -> torch.Stream:
    """The current stream of a device."""
    return torch.accelerator.current_stream(_index(device))


def set_stream(stream: torch.Stream) -> None:
    """Make a stream, and its device, the current one."""
    torch.accelerator.set_stream(stream)


def empty_cache() -> None:
    """Give the memory that nothing uses back."""
    torch.accelerator.empty_cache()


def memory_stats(device: Device = None) -> "OrderedDict[str, Any]":
    """The allocator's statistics, flat; empty before the first use."""
    return torch.accelerator.memory_stats(_index(device)) if is_initialized() else OrderedDict()


def memory_allocated(device: Device = None) -> int:
    """Bytes held by live tensors."""
    return int(memory_stats(device).get("allocated_bytes.all.current", 0))


def max_memory_allocated(device: Device = None) -> int:
    """The most bytes that live tensors held."""
    return int(memory_stats(device).get("allocated_bytes.all.peak", 0))


def memory_reserved(device: Device = None) -> int:
    """Bytes held by the allocator, live tensors and its cache together."""
    return int(memory_stats(device).get("reserved_bytes.all.current", 0))


def max_memory_reserved(device: Device = None) -> int:
    """The most bytes that the allocator held."""
    return int(memory_stats(device).get("reserved_bytes.all.peak", 0))


def reset_peak_memory_stats(device: Device = None) -> None:
    """Start the peaks again at what is in use now."""
    torch.accelerator.reset_peak_memory_stats(_index(device))


def reset_accumulated_memory_stats(device: Device = None) -> None:
    """Start the running totals again at zero."""
    torch.accelerator.reset_accumulated_memory_stats(_index(device))


def mem_get_info(device: Device = None) -> tuple[int, int]:
    """Free and total bytes of a device, as its driver would say."""
    init()
    info: tuple[int, int] = torch._C._accelerator_getMemoryInfo(_index(device))
    return info


def manual_seed(seed: int) -> None:
    """Seed the generator of the current device; initialises nothing."""
    here = torch._C._accelerator_hooks_get_current_device()  # current_device() would initialise
    torch.ops.simgpu.manual_seed(here, _as_int64(seed))


def manual_seed_all(seed: int) -> None:
    """Seed the generators of all devices; initialises nothing."""
    for index in range(device_count()):
        torch.ops.simgpu.manual_seed(index, _as_int64(seed))


def seed_all() -> None:
    """Seed the generators of all devices with one random number."""
    manual_seed_all(int.from_bytes(os.urandom(7), "little"))


def initial_seed() -> int:
    """The seed of the current device's generator."""
    return int(torch.ops.simgpu.initial_seed(torch._C._accelerator_hooks_get_current_device()))


def get_rng_state(device: Device = None) -> torch.Tensor:
    """The state of a device's generator, a CPU tensor of bytes."""
    state: torch.Tensor = torch.ops.simgpu.get_rng_state(_index(device))
    return state


def get_rng_state_all() -> list[torch.Tensor]:
    """The states of all devices' generators."""
    return [get_rng_state(index) for index in range(device_count())]


def set_rng_state(new_state: torch.Tensor, device: Device = None) -> None:
    """Set the state of a device's generator."""
    torch.ops.simgpu.set_rng_state(_index(device), new_state)


def set_rng_state_all(new_states: Iterable[torch.Tensor]) -> None:
    """Set the states of all devices' generators."""
    for index, state in enumerate(new_states):
        set_rng_state(state, index)


def is_bf16_supported() -> bool:
    """The CPU's kernels do the work, and they know bfloat16."""
    return True


def get_amp_supported_dtype() -> list[torch.dtype]:
    """What `torch.autocast` may be asked for."""
    return [torch.float16, torch.bfloat16]


def _index(device: Device) -> int:
    """The index that a device argument names; the current device for none."""
    if isinstance(device, int):
        return current_device() if device < 0 else device
    if device is None:
        return current_device()
    named = torch.device(device)
    if named.type != "simgpu":
        raise ValueError(f"expected a simgpu device, not {named}")
    return current_device() if named.index is None else named.index


def _as_int64(seed: int) -> int:
    """A seed may be any 64 bits; an operator's argument is signed."""
    return (seed + 2**63) % 2**64 - 2**63
