"""Where tensors and arrays were made: one place to ask, whoever has recorded it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

from pytest_gpuclean.memory.cuda_history import CudaHistory
from pytest_gpuclean.memory.places import Places
from pytest_gpuclean.memory.recorder import SiteRecorder


class Sites:
    """What a run knows of creation sites."""

    def __init__(self, *, is_on: bool, confirms: int = 0) -> None:
        """Set it up.

        Args:
            is_on: whether anything is to be recorded at all.
            confirms: how often a suspect is run again.
        """
        self._is_on = is_on
        self._confirms = confirms
        places = Places()
        self._recorder = SiteRecorder(places)
        self._history = CudaHistory(places)

    def begin_window(self) -> None:
        """Switch on what can be on all the time, as soon as its device is in use."""
        if self._is_on:
            self._history.begin()

    @contextlib.contextmanager
    def recording(self, devices: Collection[str]) -> Iterator[bool]:
        """Record every site in a run of a suspect; hand out whether anything is recorded.

        Args:
            devices: where it has leaked; nothing is recorded where there are none. NumPy's arrays are recorded for host
                memory alone: that is dear.
        """
        if not self._is_on or not devices:
            yield False
            return
        self._recorder.traces_arrays = "cpu" in devices
        with self._recorder:
            yield True

    def site_of(self, identity: tuple[str, int], value: Any) -> str:
        """Name where the memory behind a tensor or an array was made; empty where that was not recorded.

        Args:
            identity: of its storage.
            value: the tensor or array.
        """
        if not self._is_on:
            return ""
        return self._recorder.site_of(identity, value) or self._history.site_of(*identity)

    def forget(self) -> None:
        """Drop what was recorded in a run of a suspect: its addresses will be given to something else."""
        self._recorder.forget()
        self._history.forget()

    def lack(self, device: str) -> str:
        """Say what would have to be switched on, or why a device's sites are not known; empty where they are.

        Args:
            device: `cuda:0`, `cpu`.
        """
        if not self._is_on:
            return ""
        if device.partition(":")[0] == "cuda" and self._history.missing is None:
            return ""
        if self._confirms:
            return ""
        missing = self._history.missing if device.partition(":")[0] == "cuda" else None
        why = f" ({missing.reason})" if missing is not None else ""
        return f"where it was made is recorded when a suspect runs again: --gpu-leak-confirm=1{why}"

    def close(self) -> None:
        """Leave torch as it was found."""
        self._history.end()
