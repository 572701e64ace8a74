"""Adopting orphans (Linux): a descendant whose parent ends stays a descendant of the run, not of pid 1."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def adopts_orphans() -> bool | None:
    """Tell whether this process adopts the orphans among its descendants; None where there is no such thing."""
    value = ctypes.c_int()
    if _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(value)) is not None:
        return None
    return bool(value.value)


def adopt_orphans(adopt: bool) -> str | None:
    """Begin or end to adopt them.

    Args:
        adopt: whether to.

    Returns:
        None where it was done, else the reason why not.
    """
    return _prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(adopt))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)  # each one more is a cycle for the garbage collector


def _prctl(option: int, value: object) -> str | None:
    if sys.platform != "linux":
        return f"{sys.platform} has no subreaper"
    zero = ctypes.c_ulong(0)
    try:
        failed = _libc().prctl(option, value, zero, zero, zero)
    except (OSError, AttributeError) as error:
        return f"no prctl: {error}"
    return f"prctl: {os.strerror(ctypes.get_errno())}" if failed else None
