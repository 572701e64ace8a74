"""TensorFlow's allocators, once its runtime is up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_gpuclean.memory.interface import first_line, loaded, member, whole
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.memory import Reading


class TensorFlowProbe:
    """Reads each GPU of TensorFlow, and its CPU allocator: that one is exact, where the process heap is not."""

    source = package = "tensorflow"

    def read(self) -> Iterator[Reading | Unavailable]:
        """Give one reading a device; nothing before the runtime has been initialised by somebody else."""
        context = live_context()
        if context is None:
            return
        for device in context.list_logical_devices():
            index = device.name.rpartition(":")[2]
            try:
                info = context.get_memory_info(f"{device.device_type}:{index}")
                yield Reading(
                    device=device_name(device.device_type, index),
                    source=self.source,
                    allocated_bytes=whole(info["current"]),
                    # The pool is not told, and stays with the process whatever is cleaned.
                    reserved_bytes=whole(info["current"]),
                    peak_bytes=whole(info["peak"]),
                )
            except Exception as error:
                yield Unavailable(f"tensorflow {device.device_type}:{index}", first_line(error))

    def reset_peak(self) -> None:
        """Begin a new peak on every GPU."""
        context = live_context()
        if context is None:
            return
        for device in context.list_logical_devices():
            if device.device_type in ("CPU", "GPU"):
                context.reset_memory_stats(device.name.removeprefix("/device:"))


def live_context() -> Any | None:
    """Return TensorFlow's eager context where it is initialised, else None.

    `tf.config` must not be asked before: it initialises the runtime, even where it raises.
    """
    module = loaded("tensorflow.python.eager.context")
    context_safe = member(module, "context_safe") if module and loaded("tensorflow") else None
    context = context_safe() if context_safe else None
    return context if getattr(context, "_initialized", False) is True else None


def device_name(device_type: str, index: str) -> str:
    """Name a device as the other frameworks do."""
    return {"CPU": "cpu", "GPU": f"cuda:{index}"}.get(device_type, f"{device_type.lower()}:{index}")
