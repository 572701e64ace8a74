"""What can be asked about GPUs without initialising anything: device files, and contexts that are there already."""

from __future__ import annotations

import ctypes
import functools
import glob
import os
import sys

_MAX_DEVICES = 64


def gpu_is_visible() -> bool:
    """Tell whether this machine shows an NVIDIA or AMD GPU to this process."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return _gpu_files_exist()


@functools.cache
def _gpu_files_exist() -> bool:
    if sys.platform == "win32":
        return os.path.exists(os.path.join(os.environ.get("SYSTEMROOT", ""), "System32", "nvcuda.dll"))
    # dxg is WSL's, kfd AMD's, nvmap that of Jetson boards.
    return any(os.path.exists(path) for path in ("/dev/dxg", "/dev/kfd", "/dev/nvmap")) or bool(
        glob.glob("/dev/nvidia[0-9]*")
    )


def active_cuda_devices() -> tuple[int, ...]:
    """List the devices on which this process has a CUDA context already.

    The driver library is looked up only where it is loaded, so nothing is initialised by asking.
    """
    driver = _loaded_driver()
    if driver is None:
        return ()
    flags, active = ctypes.c_uint(), ctypes.c_int()
    devices = []
    for index in range(_MAX_DEVICES):
        status = driver.cuDevicePrimaryCtxGetState(index, ctypes.byref(flags), ctypes.byref(active))
        if status != 0:  # 3: the driver is not initialised; 101: there is no such device
            break
        if active.value:
            devices.append(index)
    return tuple(devices)


def _loaded_driver() -> ctypes.CDLL | None:
    no_load = getattr(os, "RTLD_NOLOAD", None)
    if no_load is None:  # Windows
        return None
    try:
        return ctypes.CDLL("libcuda.so.1", mode=os.RTLD_NOW | no_load)
    except OSError:
        return None
