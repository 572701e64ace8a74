"""The markers' names and texts, and whether a run concerns us at all: this much is loaded where the plugin is off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

MARKERS = {
    "gpu_clean": "gpu_clean(level, every='test'): clean after this test (quick or comprehensive); every: test, "
    "param, class, module or session",
    "gpu_leak": "gpu_leak(threshold=None, allow=None, until=None): judge this test's leaks by another threshold, or "
    "allow them for a reason, up to a day such as '2027-01-31'",
    "gpu_limit": "gpu_limit(peak): fail this test where its peak of device memory is above a size",
    "gpu_require": "gpu_require(count=1, memory=None, free=None): skip this test where there are not so many visible "
    "GPUs with so much memory; for free memory it waits, up to --gpu-settle",
    "gpu_exclusive": "gpu_exclusive(timeout=3600): hold back the other tests with this marker that use the same GPU, "
    "in all workers and runs of the machine; after so many seconds of waiting the test fails",
}
NEEDS = frozenset({"gpu_require", "gpu_exclusive"})
"""What a test needs: no cleaning, so these hold also where all of that is off."""
FIXTURES = frozenset({"gpu_clean", "gpu_clean_class", "gpu_clean_module", "gpu_clean_session"})


def asked_for(items: Iterable[pytest.Item]) -> tuple[bool, bool]:
    """Tell whether some test asks for cleaning or judging, by marker or fixture, and whether one has needs."""
    marked: set[pytest.Collector] = set()
    names: set[str] = set()
    has_fixture = False
    for item in items:
        names.update(_own_markers(item))
        has_fixture = has_fixture or asks_for_fixture(item)
        parent = item.parent
        while parent is not None and parent not in marked:
            marked.add(parent)
            names.update(_own_markers(parent))
            parent = parent.parent
    return has_fixture or bool(names - NEEDS), bool(names & NEEDS)


def asks_for_fixture(item: pytest.Item) -> bool:
    """Whether a test asks for a fixture of ours by name."""
    return not FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def _own_markers(node: Any) -> list[str]:
    return [mark.name for mark in node.own_markers if mark.name in MARKERS]
