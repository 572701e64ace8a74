"""CuPy's default memory pool."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_gpuclean.memory.driver import active_cuda_devices
from pytest_gpuclean.memory.interface import first_line, loaded, member, whole
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.memory import Reading


class CupyProbe:
    """Reads the default pool on each device that has a context already."""

    source = package = "cupy"

    def read(self) -> Iterator[Reading | Unavailable]:
        """Give one reading a device; nothing where this process has no context yet."""
        cupy = loaded("cupy")
        pool_of = member(cupy, "get_default_memory_pool") if cupy else None
        if cupy is None or pool_of is None:
            return
        for index in active_cuda_devices():
            try:
                with cupy.cuda.Device(index):
                    pool = pool_of()
                    yield Reading(
                        device=f"cuda:{index}",
                        source=self.source,
                        allocated_bytes=whole(pool.used_bytes()),
                        reserved_bytes=whole(pool.total_bytes()),
                    )
            except Exception as error:
                yield Unavailable(f"cupy cuda:{index}", first_line(error))

    def reset_peak(self) -> None:
        """Do nothing: CuPy's pool keeps no peak."""
