"""JAX's allocators, once a backend is up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_gpuclean.memory.interface import first_line, loaded, member, whole
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.memory import Reading


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
