"""What a test's properties say, in JUnit and elsewhere: flat names, whole numbers and text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.reports.data import DeviceUse

PREFIX = "gpuclean_"
"""Of the name of each."""
_LEAST_TOLD_BYTES = 64 * 1024
"""Less than that is the runner's own coming and going."""


def properties(uses: Iterable[DeviceUse], leaks: Sequence[Leak], given_back_bytes: int) -> list[tuple[str, str | int]]:
    """Name what a test used, leaked and gave back; empty where there is nothing to say.

    Args:
        uses: what it did to each device.
        leaks: what it leaked, allowed or not.
        given_back_bytes: by cleaning and judging.
    """
    used = [use for use in uses if _is_told(use)]
    kept = [leak for leak in leaks if leak.kind != "peak"]
    devices = list(dict.fromkeys([*(use.device for use in used), *(leak.device for leak in leaks)]))
    found: list[tuple[str, str | int]] = []
    if devices:
        found.append((f"{PREFIX}device", ", ".join(devices)))
    peaks = [use.peak_bytes for use in used if use.peak_bytes is not None]
    if peaks:
        found.append((f"{PREFIX}peak_bytes", max(peaks)))
    if kept:
        found.append((f"{PREFIX}leaked_bytes", sum(leak.leaked_bytes for leak in kept if not leak.excused)))
    if any(leak.excused for leak in kept):
        found.append((f"{PREFIX}allowed_bytes", sum(leak.leaked_bytes for leak in kept if leak.excused)))
    if given_back_bytes >= _LEAST_TOLD_BYTES:
        found.append((f"{PREFIX}given_back_bytes", given_back_bytes))
    return found + (list(_by_device(used, kept)) if len(devices) > 1 else [])


def _is_told(use: DeviceUse) -> bool:
    if use.device == "cpu":
        return False  # the heap moves in every test; what leaks or comes back of it is told all the same
    return use.begin_bytes != use.end_bytes or (use.peak_bytes or 0) > use.begin_bytes


def _by_device(used: Iterable[DeviceUse], leaks: Iterable[Leak]) -> Iterable[tuple[str, str | int]]:
    for use in used:
        if use.peak_bytes is not None:
            yield f"{PREFIX}peak_bytes[{use.device}]", use.peak_bytes
    leaked: dict[str, int] = {}
    for leak in leaks:
        if not leak.excused:
            leaked[leak.device] = leaked.get(leak.device, 0) + leak.leaked_bytes
    for device, size in leaked.items():
        yield f"{PREFIX}leaked_bytes[{device}]", size
