"""Where memory on CUDA devices was allocated: torch's own memory history, which costs about 2 us an allocation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from pytest_gpuclean.memory.interface import first_line, loaded, member
from pytest_gpuclean.memory.places import Place, Places
from pytest_gpuclean.memory.torch import initialised_backends
from pytest_gpuclean.model import Unavailable

SOURCE = "allocation sites on CUDA"
_BACKEND = "cuda"
_FRESH_SECONDS = 1.0
"""How long a snapshot serves: a leak's tensors are asked for one after the other."""


class CudaHistory:
    """Keeps torch's memory history on from when CUDA comes into use, unless somebody else has it on."""

    def __init__(self, places: Places | None = None) -> None:
        self._places = Places() if places is None else places
        self._is_settled = False
        """Whether it has been switched on, or is somebody else's, or cannot be had."""
        self._is_ours = False
        self.missing: Unavailable | None = None
        """Why sites are not known; None where they are, or CUDA is not in use yet."""
        self._blocks: dict[tuple[int, int], tuple[Place, ...]] = {}
        """By device and address."""
        self._taken_at = float("-inf")

    def begin(self) -> None:
        """Switch it on, if CUDA is in use by now. Asked at each window; nothing is done but once."""
        if self._is_settled:
            return
        torch = loaded("torch")
        if torch is None or _BACKEND not in initialised_backends(torch):
            return
        self._is_settled = True
        try:
            self.missing = self._switch_on(torch)
        except Exception as error:  # private calls, which may take other arguments in some release
            self.missing = Unavailable(SOURCE, first_line(error))

    def end(self) -> None:
        """Switch it off again, where it was not on before."""
        torch = loaded("torch")
        record = _call(torch, "_record_memory_history")
        if self._is_ours and record is not None:
            self._is_ours = False
            try:
                record(None)
            except Exception as error:
                self.missing = Unavailable(SOURCE, first_line(error))

    def forget(self) -> None:
        """Drop the last snapshot."""
        self._blocks, self._taken_at = {}, float("-inf")

    def site_of(self, device: str, address: int) -> str:
        """Name where the block at an address was allocated; empty where that is not known.

        Args:
            device: `cuda:0`.
            address: where the block begins.
        """
        backend, _, index = device.partition(":")
        if backend != _BACKEND or not self._is_settled or self.missing is not None or not index.isdecimal():
            return ""
        if time.monotonic() - self._taken_at > _FRESH_SECONDS:
            self._take_snapshot()
        return self._places.site(self._blocks.get((int(index), address), ()))

    def _switch_on(self, torch: ModuleType) -> Unavailable | None:
        is_on = member(torch, "_C", "_cuda_isHistoryEnabled")
        record, snapshot = _call(torch, "_record_memory_history"), _call(torch, "_snapshot")
        if is_on is None or record is None or snapshot is None:
            return Unavailable(SOURCE, "this release of torch keeps no memory history that could be read")
        if not is_on():
            record("state", stacks="python")
            self._is_ours = True
        return None

    def _take_snapshot(self) -> None:
        self.forget()
        snapshot = _call(loaded("torch"), "_snapshot")
        try:
            self._blocks = dict(_blocks_in(snapshot())) if snapshot is not None else {}
        except Exception as error:
            self.missing = Unavailable(SOURCE, first_line(error))
        self._taken_at = time.monotonic()


def _call(torch: ModuleType | None, name: str) -> Any:
    return member(torch, _BACKEND, "memory", name) if torch is not None else None


def _blocks_in(snapshot: Any) -> Iterator[tuple[tuple[int, int], tuple[Place, ...]]]:
    """Give each block that is in use, with the frames of its allocation, the innermost first."""
    for segment in snapshot["segments"]:
        device, address = int(segment["device"]), int(segment["address"])
        for block in segment["blocks"]:
            begin = int(block.get("address", address))  # before 2.1 it follows from the sizes of those before it
            address = begin + int(block["size"])
            # Before 2.1 the frames stand in a history, the latest allocation first.
            frames = block.get("frames") or next((entry.get("frames") for entry in block.get("history", ())), None)
            if str(block["state"]).startswith("active") and frames:
                yield (
                    (device, begin),
                    tuple(Place(str(f["filename"]), int(f["line"]), str(f["name"])) for f in frames),
                )
