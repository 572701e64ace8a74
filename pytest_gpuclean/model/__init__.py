"""The data that flows through the plugin, a file for each part; here is what all of them use.

All of it is frozen; numbers and text alone, never objects of a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Wire = dict[str, Any]
"""What crosses a process: dicts, lists, text, numbers and None."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A source that could not be read. Never stands for zero bytes."""

    source: str
    reason: str
