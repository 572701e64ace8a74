"""TensorFlow's allocators, once its runtime is up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_gpuclean.memory.interface import first_line, loaded, member, whole
from pytest_gpuclean.model import Reading, Unavailable


class TensorFlowProbe:
    """Reads each GPU of TensorFlow. Its CPU allocator is read by the census of host memory."""

    source = "tensorflow"

    def read(self) -> Iterator[Reading | Unavailable]:
        """Give one reading a GPU; nothing before the runtime has been initialised by somebody else."""
        context = live_context()
        if context is None:
            return
        for device in context.list_logical_devices():
            if device.device_type != "GPU":
                continue
            index = device.name.rpartition(":")[2]
            try:
                info = context.get_memory_info(f"GPU:{index}")
                yield Reading(
                    device=f"cuda:{index}",
                    source=self.source,
                    allocated_bytes=whole(info["current"]),
                    # The pool is not told, and stays with the process whatever is cleaned.
                    reserved_bytes=whole(info["current"]),
                    peak_bytes=whole(info["peak"]),
                )
            except Exception as error:
                yield Unavailable(f"tensorflow GPU:{index}", first_line(error))

    def reset_peak(self) -> None:
        """Begin a new peak on every GPU."""
        context = live_context()
        if context is None:
            return
        for device in context.list_logical_devices():
            if device.device_type == "GPU":
                context.reset_memory_stats(device.name.removeprefix("/device:"))


def live_context() -> Any | None:
    """Return TensorFlow's eager context where it is initialised, else None.

    `tf.config` must not be asked before: it initialises the runtime, even where it raises.
    """
    module = loaded("tensorflow.python.eager.context")
    context_safe = member(module, "context_safe") if module and loaded("tensorflow") else None
    context = context_safe() if context_safe else None
    return context if getattr(context, "_initialized", False) is True else None


def cpu_bytes() -> int:
    """Read what TensorFlow's CPU allocator has in use, in bytes; 0 where the runtime is not up."""
    context = live_context()
    return whole(context.get_memory_info("CPU:0")["current"]) if context else 0
