"""JAX's allocators, once a backend is up."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from itertools import filterfalse, islice
from typing import Any

from pytest_gpuclean.memory.interface import first_line, loaded, member, whole
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.memory import Reading

_NEWEST = 32
"""Arrays that are asked whether they are computed: what is older than so many others nearly always is."""
_is_deleted = operator.methodcaller("is_deleted")
_is_ready = operator.methodcaller("is_ready")


class JaxProbe:
    """Reads each accelerator of JAX. Its CPU arrays are read by the census of host memory."""

    source = package = "jax"

    def read(self) -> Iterator[Reading | Unavailable]:
        """Give one reading a device; nothing before a backend has been initialised by somebody else."""
        for client in live_clients():
            if client.platform == "cpu":
                continue
            for device in client.local_devices():
                name = f"{client.platform}:{device.local_hardware_id}"
                try:
                    stats = device.memory_stats()
                    if stats is None:
                        yield Unavailable(f"jax {name}", "this backend keeps no memory statistics")
                        continue
                    in_use = whole(stats["bytes_in_use"])
                    yield Reading(
                        device=name,
                        source=self.source,
                        allocated_bytes=in_use,
                        reserved_bytes=whole(stats.get("pool_bytes", in_use)),
                        peak_bytes=stats.get("peak_bytes_in_use"),
                    )
                except Exception as error:
                    yield Unavailable(f"jax {name}", first_line(error))

    def reset_peak(self) -> None:
        """Do nothing: JAX has no way to begin a new peak."""


def live_clients() -> list[Any]:
    """List the clients of the backends that are up; asking for devices before would start them all."""
    bridge = loaded("jax._src.xla_bridge")
    if bridge is None or loaded("jax") is None:
        return []
    is_up = member(bridge, "backends_are_initialized")
    if is_up is None or is_up() is not True:
        return []
    return list(member(bridge, "backends")().values())


def has_computed(*, all_of_it: bool = False) -> bool:
    """Tell whether the arrays in host memory that somebody has are computed: JAX goes on to that in the background.

    Args:
        all_of_it: whether to ask all of them, and not the newest alone.
    """
    if "jax" not in sys.modules:
        return True
    try:
        # From end to end in C, where no other thread comes in between: is_ready ends the process (a segmentation fault
        # of jaxlib 0.10) where the array has been deleted. The newest come first.
        return all(
            all(map(_is_ready, islice(filterfalse(_is_deleted, client.live_arrays()), None if all_of_it else _NEWEST)))
            for client in live_clients()
            if client.platform == "cpu"
        )
    except Exception:  # what cannot say it is not waited for
        return True
