"""A simulated torch accelerator: two devices, `simgpu:0` and `simgpu:1`, in host memory.

`load()` makes it torch's accelerator for the rest of the process, `control` scripts it.
"""

import sys
from functools import cache

from . import control
from .build import SimgpuUnavailable, build

__all__ = ["SimgpuUnavailable", "build", "control", "load", "unavailable_reason"]

NAME = "simgpu"
_loaded = False


def load() -> None:
    """Build it where needed, and make it torch's accelerator in this process; twice is once.

    Raises:
        SimgpuUnavailable: it cannot be built, or another accelerator has taken its place.
    """
    global _loaded
    if _loaded:
        return
    if reason := _taken():
        raise SimgpuUnavailable(reason)
    library = build()

    import torch

    torch.ops.load_library(str(library))
    control.attach(library)
    torch.utils.rename_privateuse1_backend(NAME)

    from . import module

    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    _loaded = True


def unavailable_reason() -> str | None:
    """Why `load()` would fail here, or None. Builds, where that was not done, but loads nothing."""
    if _loaded:
        return None
    return _taken() or _build_failure()


@cache
def _build_failure() -> str | None:
    try:
        build()
    except SimgpuUnavailable as error:
        return str(error)
    return None


def _taken() -> str | None:
    """The name of PrivateUse1 can be given once a process."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    name = torch._C._get_privateuse1_backend_name()
    return None if name == "privateuseone" else f"torch's PrivateUse1 is already {name!r}"
