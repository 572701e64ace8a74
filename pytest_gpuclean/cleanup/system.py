"""What belongs to the whole machine: the kernel's caches, and the GPUs themselves. Only where the user names it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence

from pytest_gpuclean.cleanup.frameworks import CupyCleaner
from pytest_gpuclean.cleanup.interface import Cleaner, Occasion, RefusedError, Skip
from pytest_gpuclean.cleanup.nvidia_smi import NvidiaSmi
from pytest_gpuclean.cleanup.torch import SynchronizeCleaner, TorchCacheCleaner, TorchLibraryCleaner
from pytest_gpuclean.units import format_seconds

DROP_CACHES = "drop-caches"
GPU_RESET = "gpu-reset"
CACHES_FILE = "/proc/sys/vm/drop_caches"
_EVERYTHING = b"3\n"
"""Pages, and with them entries of folders and inodes."""
_SYNC: Callable[[], object] = getattr(os, "sync", lambda: None)
_LONGEST_SYNC_SECONDS = 60.0
_WHY_NOT_WRITTEN = {
    errno.ENOENT: "it is not there: this needs Linux",
    errno.EROFS: "it is read-only here, as in a container",
    errno.EACCES: "this needs root",
    errno.EPERM: "this needs root",
}


class DropCachesCleaner:
    """The kernel's caches of files and folders.

    Args:
        path: the file that the kernel listens to.
        sync: writes to disk what has been changed: only clean pages can be dropped.
        sync_seconds: how long that may take; a network file system that is gone would hold it up for ever.
    """

    name = DROP_CACHES
    is_measured = False

    def __init__(
        self,
        path: str = CACHES_FILE,
        sync: Callable[[], object] = _SYNC,
        sync_seconds: float = _LONGEST_SYNC_SECONDS,
    ) -> None:
        self._path = path
        self._sync = sync
        self._sync_seconds = sync_seconds

    def clean(self, occasion: Occasion) -> str | Skip:  # noqa: ARG002
        """Write what has changed to disk, and have the clean caches dropped.

        Raises:
            RefusedError: where this process may not, or the disks take too long.
        """
        # First: to sync costs seconds, and would be for nothing.
        descriptor = self._open()
        try:
            if not _ends_within(self._sync, self._sync_seconds):
                raise RefusedError(
                    f"the disks have not taken in what has changed within {format_seconds(self._sync_seconds)}"
                )
            os.write(descriptor, _EVERYTHING)
        except OSError as error:
            raise self._refusal(error) from None
        finally:
            os.close(descriptor)
        return "the kernel's caches of files and folders"

    def _open(self) -> int:
        try:
            # Neither made nor cut off where it is something else than the kernel's.
            return os.open(self._path, os.O_WRONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0))
        except OSError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: OSError) -> RefusedError:
        why = _WHY_NOT_WRITTEN.get(error.errno or 0, error.strerror or str(error))
        uid = f" (this process runs as uid {os.geteuid()})" if "root" in why and hasattr(os, "geteuid") else ""
        return RefusedError(f"{self._path}: {why}{uid}")


class GpuResetCleaner:
    """The GPUs themselves: the driver starts them anew, once a run and only where nobody uses any of them.

    Where that cannot be, the frameworks' caches are cleared instead.

    Args:
        smi: NVIDIA's own tool.
        fallback: what is cleared where there is no reset.
    """

    name = GPU_RESET

    def __init__(self, smi: NvidiaSmi | None = None, fallback: Sequence[Cleaner] | None = None) -> None:
        self._smi = smi or NvidiaSmi()
        self._fallback = fallback if fallback is not None else [cleaner() for cleaner in CACHE_CLEANERS]
        self._failure = ""
        self._is_done = False

    def clean(self, occasion: Occasion) -> str | Skip:
        """Reset all GPUs, or say why not and clear the caches of the frameworks.

        Raises:
            RefusedError: where they were not reset.
        """
        if self._is_done:
            return Skip("the GPUs were reset already: once a run")
        # Who uses them changes; what a reset failed of once, such as a missing right, does not.
        failure = self._failure or self._smi.why_not_idle()
        if not failure:
            failure = self._failure = self._smi.reset()
        if failure:
            raise RefusedError(f"{failure}; {self._fall_back(occasion)}")
        self._is_done = True
        return "the GPUs were reset"

    def _fall_back(self, occasion: Occasion) -> str:
        done = []
        for cleaner in self._fallback:
            try:
                outcome = cleaner.clean(occasion)
            except Exception as error:
                outcome = f"{cleaner.name} failed ({type(error).__name__}: {error})"
            done += [] if isinstance(outcome, Skip) else [outcome]
        return f"cleared instead: {', '.join(done) or 'nothing, as no framework has caches here'}"


CACHE_CLEANERS: tuple[type[Cleaner], ...] = (SynchronizeCleaner, TorchLibraryCleaner, TorchCacheCleaner, CupyCleaner)
"""What gives the frameworks' caches on a device back, in the order in which they run."""


class SystemCleaners:
    """The steps that a user can name, each made once a run.

    Args:
        drop_caches: the one of the kernel's caches.
        gpu_reset: the one of the GPUs.
    """

    def __init__(self, drop_caches: Cleaner | None = None, gpu_reset: Cleaner | None = None) -> None:
        self._cleaners: dict[str, Cleaner] = {
            DROP_CACHES: drop_caches or DropCachesCleaner(),
            GPU_RESET: gpu_reset or GpuResetCleaner(),
        }

    def named(self, names: Sequence[str]) -> list[Cleaner]:
        """Give the steps for some names, in their own order; other names are passed over."""
        return [cleaner for name, cleaner in self._cleaners.items() if name in names]


def _ends_within(does: Callable[[], object], seconds: float) -> bool:
    """Do something in a thread, which is left behind where it hangs in the kernel: no signal would break it off."""
    thread = threading.Thread(target=does, name="gpuclean-sync", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
