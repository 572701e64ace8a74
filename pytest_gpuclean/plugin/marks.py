"""What the markers of a test say: each argument by the closest marker that has it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from pytest_gpuclean.plugin.options import MARKERS

_PARAMETERS = {
    "gpu_clean": ("level", "every"),
    "gpu_leak": ("threshold", "allow", "until"),
    "gpu_limit": ("peak",),
    "gpu_require": ("count", "memory", "free"),
    "gpu_exclusive": ("timeout",),
}
_REQUIRED = {"gpu_clean": "level", "gpu_limit": "peak"}

Said = dict[tuple[str, str], tuple[Any, str]]
"""By marker and argument: its value, and the marker and node that say so."""


def said_on(node: pytest.Item | pytest.Collector, names: Collection[str]) -> Said:
    """Read some of the markers that hold for a test, or for a class or module.

    Args:
        node: the test, class or module.
        names: the markers to read.

    Raises:
        pytest.UsageError: where the arguments do not fit the marker, naming it and the node.
    """
    said: Said = {}
    for mark in node.iter_markers():
        if mark.name in names:
            source = f"@pytest.mark.{mark.name} on {node.nodeid}"
            for name, value in _arguments(mark, source).items():
                said.setdefault((mark.name, name), (value, source))
    return said


def _arguments(mark: pytest.Mark, source: str) -> dict[str, Any]:
    names = _PARAMETERS[mark.name]
    unknown = [name for name in mark.kwargs if name not in names]
    doubled = [name for name in names[: len(mark.args)] if name in mark.kwargs]
    if len(mark.args) > len(names) or unknown or doubled:
        wrong = ", ".join([*unknown, *doubled]) or f"{len(mark.args)} arguments"
        raise pytest.UsageError(f"{source}: {wrong} does not fit {MARKERS[mark.name].partition(': ')[0]}")
    found = {**dict(zip(names, mark.args, strict=False)), **mark.kwargs}
    given = {name: value for name, value in found.items() if value is not None}
    required = _REQUIRED.get(mark.name)
    if required is not None and required not in given:
        raise pytest.UsageError(f"{source}: {required} is missing; write {MARKERS[mark.name].partition(': ')[0]}")
    return given
