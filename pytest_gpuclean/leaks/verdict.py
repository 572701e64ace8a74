"""The decision: pure functions over numbers."""

from __future__ import annotations

from typing import NamedTuple

from pytest_gpuclean.model.memory import ARRAYS, HEAP, Account, Bytes


class Split(NamedTuple):
    """How a test's growth divides."""

    leaked_bytes: int
    """Charged to the test; 0 where it is clean."""
    kept_bytes: int
    """Below the threshold: it goes to the drift. Negative where the test freed what was kept before."""


def judge(growth_bytes: int, owned_bytes: int, drift_bytes: int, threshold_bytes: int) -> Split:
    """Decide whether a window leaked.

    Args:
        growth_bytes: in use at the end minus at the start, without what wider fixtures brought up.
        owned_bytes: by how much the values of live wider fixtures grew since they were last looked at. That may
            have come about in earlier windows too, which is why the drift comes in.
        drift_bytes: what earlier windows kept below the threshold since that look.
        threshold_bytes: the largest growth that passes.
    """
    # A fixture that shrank may explain a fall, but never makes a leak: it may have shrunk long before.
    owned = max(owned_bytes, min(growth_bytes, 0))
    # What fixtures grew by in earlier windows stands in the drift, and excuses nothing of this one.
    of_earlier = min(max(owned, 0), max(drift_bytes, 0))
    kept = growth_bytes - owned
    leaked = min(growth_bytes, kept + of_earlier)
    return Split(leaked, kept - leaked) if leaked > threshold_bytes else Split(0, kept)


def judged_growth(
    share: Bytes, account: Account, uncounted_bytes: int | None = None, heap_bytes: int | None = None
) -> int:
    """How much of a share can be put down to live objects.

    Args:
        share: what a test or a fixture holds.
        account: which part of it.
        uncounted_bytes: how much of the arrays may have come between the last count of them and this window; None
            where that is long ago, so that all of them may.
        heap_bytes: by how much the heap had grown before anything was freed to find out; that of the share by default.
    """
    size = share.get(account, 0)
    if account != ARRAYS or HEAP not in share:
        return size
    heap = max(0, share[HEAP] if heap_bytes is None else heap_bytes)
    # A heap that grew by even less has also given back something else, and says nothing of the arrays.
    tells = uncounted_bytes is None or heap >= size - uncounted_bytes
    return min(size, heap) if tells else size
