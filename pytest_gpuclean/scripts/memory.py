"""The memory functions of the old cleaners, and what is in use. Nothing here concerns processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from pytest_gpuclean.cleanup.garbage import GarbageCleaner
from pytest_gpuclean.cleanup.host import HeapTrimCleaner
from pytest_gpuclean.cleanup.interface import Cleaner
from pytest_gpuclean.cleanup.system import DROP_CACHES, GPU_RESET
from pytest_gpuclean.model.cleanup import CleanupResult
from pytest_gpuclean.model.memory import Snapshot
from pytest_gpuclean.scripts.naming import HostWide, read_host_wide
from pytest_gpuclean.scripts.session import session
from pytest_gpuclean.scripts.steps import RefusedStep, cache_steps
from pytest_gpuclean.scripts.telling import Teller, resident_bytes, snapshot_lines

Function = TypeVar("Function", bound=Callable[[], object])


def snapshot() -> Snapshot:
    """Read what is in use now, by framework and device, and the heap. Nothing is initialised by asking."""
    return session().gauge.read()


def on_cleanup(function: Function) -> Function:
    """Call a function at the next cleanup, the last one given first.

    Args:
        function: takes no arguments. What it raises is told, and the other steps go on.

    Returns:
        The function, so that this works as a decorator.
    """
    if not callable(function):
        raise TypeError(f"on_cleanup(): {function!r} is not callable")
    session().callables.append(function)
    return function


def get_memory_usage(verbose: bool = True) -> Snapshot:
    """Read what is in use now, and print it.

    Args:
        verbose: whether it is printed.
    """
    found = snapshot()
    tell = Teller(verbose)
    for line in snapshot_lines(found, resident_bytes()):
        tell(line)
    return found


def clear_gpu(verbose: bool = True) -> CleanupResult:
    """Wait for the devices, and give the frameworks' caches on them back. Live tensors are not touched.

    Args:
        verbose: whether each step is printed.
    """
    return _clean("clear_gpu()", cache_steps(), verbose)


def clear_python_memory(verbose: bool = True) -> CleanupResult:
    """Collect all garbage, and give free memory back to the devices and to the system.

    Args:
        verbose: whether each step is printed.
    """
    return _clean("clear_python_memory()", [GarbageCleaner(), *cache_steps(), HeapTrimCleaner()], verbose)


def clear_gpu_memory(verbose: bool = True, *, host_wide: HostWide = None) -> CleanupResult:
    """Give the frameworks' caches on the devices back; where it is named, reset the GPUs.

    They are reset only where no process uses any of them, this one included, and once a script.

    Args:
        verbose: whether each step is printed.
        host_wide: True, or `gpu-reset`.

    Raises:
        ValueError: where `host_wide` is anything else.
    """
    named = read_host_wide(host_wide, "clear_gpu_memory()", true_means=GPU_RESET, only=(GPU_RESET,))
    refused = RefusedStep(GPU_RESET, "refused, as it reaches beyond this script: host_wide=True names it")
    reset = session().system.named([GPU_RESET]) if named else [refused]
    return _clean("clear_gpu_memory()", [*reset, *cache_steps()], verbose)


def clear_system_cache(verbose: bool = True, *, host_wide: HostWide = None) -> CleanupResult:
    """Have the kernel drop its caches of files and folders, where it is named. It takes root.

    Args:
        verbose: whether each step is printed.
        host_wide: True, or `drop-caches`.

    Raises:
        ValueError: where `host_wide` is anything else.
    """
    named = read_host_wide(host_wide, "clear_system_cache()", true_means=DROP_CACHES, only=(DROP_CACHES,))
    refused = RefusedStep(DROP_CACHES, "refused, as it reaches beyond this script: host_wide=True names it")
    return _clean("clear_system_cache()", session().system.named([DROP_CACHES]) if named else [refused], verbose)


def _clean(title: str, steps: Iterable[Cleaner], verbose: bool) -> CleanupResult:
    result = session().clean(steps, "comprehensive")
    Teller(verbose).result(title, result)
    return result
