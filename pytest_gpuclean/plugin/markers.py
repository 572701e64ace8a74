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
}
FIXTURES = frozenset({"gpu_clean", "gpu_clean_class", "gpu_clean_module", "gpu_clean_session"})


def is_concerned(items: Iterable[pytest.Item]) -> bool:
    """Whether some test has a marker of ours or asks for a fixture of ours."""
    marked: dict[pytest.Collector, bool] = {}
    for item in items:
        if _has_own_marker(item) or asks_for_fixture(item):
            return True
        parent = item.parent
        while parent is not None and parent not in marked:
            marked[parent] = _has_own_marker(parent)
            if marked[parent]:
                return True
            parent = parent.parent
    return False


def asks_for_fixture(item: pytest.Item) -> bool:
    """Whether a test asks for a fixture of ours by name."""
    return not FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def _has_own_marker(node: Any) -> bool:
    return any(mark.name in MARKERS for mark in node.own_markers)
