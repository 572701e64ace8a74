"""`gpu_exclusive`: one test at a time on a device, across the workers of a run and across runs on the machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import pytest

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.memory.assignable import CUDA, entries_of, nvidia_files
from pytest_gpuclean.memory.interface import first_line
from pytest_gpuclean.memory.nvml import Nvml
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.plugin.marks import said_on
from pytest_gpuclean.processes.device_locks import DeviceLocks, NoLock, NotFree, lock_folder
from pytest_gpuclean.units import format_seconds, parse_seconds

DEFAULT_TIMEOUT_SECONDS = 3600.0
_LEAST_TOLD_SECONDS = 1.0


def timeout_of(item: pytest.Item) -> float | None:
    """Read how long a test waits for its devices; None where it does not need them for itself.

    Raises:
        pytest.UsageError: where the marker does not parse, naming it and the node.
    """
    if item.get_closest_marker("gpu_exclusive") is None:
        return None
    said = said_on(item, ("gpu_exclusive",))
    timeout, source = said.get(("gpu_exclusive", "timeout"), (DEFAULT_TIMEOUT_SECONDS, ""))
    try:
        return parse_seconds(timeout, f"{source}: timeout")
    except InputError as error:
        raise pytest.UsageError(str(error)) from None


class Exclusive:
    """Locks the devices that this process can use, for one test at a time.

    Args:
        nvml: says which cards are visible.
        tell: says what a long wait is for.
        note_gap: takes the reason why devices cannot be locked.
    """

    def __init__(self, nvml: Nvml, tell: Callable[[str], None], note_gap: Callable[[str], None]) -> None:
        self._nvml = nvml
        self._tell = tell
        self._note_gap = note_gap
        self._locks: DeviceLocks | None = None

    def take(self, item: pytest.Item, timeout_seconds: float) -> str:
        """Take the devices for a test; return why it cannot run, the empty text where it can.

        A machine on which nothing can be locked is told, and the test runs.
        """
        try:
            return self._take(item, timeout_seconds)
        except Exception as error:  # trouble of our own is no failure of the test
            self._note_gap(first_line(error))
            return ""

    def release(self) -> None:
        """Let other tests have them."""
        if self._locks is not None:
            self._locks.release()

    def _take(self, item: pytest.Item, timeout_seconds: float) -> str:
        self._locks = self._locks or self._new_locks()
        if self._locks is None:
            return ""
        found = self._locks.take(item.nodeid, timeout_seconds)
        if isinstance(found, NoLock):
            self._note_gap(found.reason)
        elif isinstance(found, NotFree):
            return f"gpuclean: gpu_exclusive: {found.reason}; wait longer: @pytest.mark.gpu_exclusive(timeout=SECONDS)"
        elif found >= _LEAST_TOLD_SECONDS:  # a worker has no terminal on which the wait could be told meanwhile
            item.add_report_section("setup", "gpuclean", f"waited {format_seconds(found)} to have the GPU for itself")
        return ""

    def _new_locks(self) -> DeviceLocks | None:
        folder = lock_folder()
        if isinstance(folder, NoLock):
            self._note_gap(folder.reason)
            return None
        visible = self._nvml.visible()
        cards = () if isinstance(visible, Unavailable) else [(card.uuid, card.label) for card in visible if card.uuid]
        return DeviceLocks(folder, cards or devices_without_driver(os.environ, nvidia_files()), self._tell)


def devices_without_driver(environ: Mapping[str, str], files: tuple[str, ...]) -> list[tuple[str, str]]:
    """Name the devices, for the whole machine and for people, where no driver says their UUIDs.

    Args:
        environ: where CUDA_VISIBLE_DEVICES is read.
        files: the numbers of the cards that show in the file system.
    """
    entries = entries_of(environ[CUDA]) if CUDA in environ else files
    found = [(f"index-{entry}" if entry.isdigit() else entry, f"GPU {entry}") for entry in entries]
    return found or [("any", "the accelerator of this machine")]
