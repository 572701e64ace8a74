"""How quick the machine is: one that is shared does the same in half the time, or in twice that, a minute later.

What is measured is therefore taken in units of a loop that is timed beside it, and told in seconds of a machine on
which that loop takes `LOOP_SECONDS`. The budgets are for that machine, whatever runs beside the measurement.
"""

from __future__ import annotations

import time
from typing import Any

LOOP_SECONDS = 21.3e-6
"""What the loop takes with Python 3.11 on a 2-core Xeon where nothing runs beside it."""


def loop_seconds() -> float:
    """Give the CPU seconds of the loop, the second time that it runs: what ran before has left the caches to differ."""
    _loop()
    begin = time.process_time()
    _loop()
    return time.process_time() - begin


def _loop() -> int:
    """Do what Python code does: calls, dicts and lists that come and go."""
    total = 0
    for number in range(120):
        entry = {"number": number, "list": [number, total]}
        total += _entries(entry)
    return total


def _entries(entry: dict[str, Any]) -> int:
    return len(entry["list"]) + int(entry["number"])


class Pace:
    """Notes the loop among the rounds of a measurement."""

    def __init__(self) -> None:
        self._taken: list[float] = []

    def note(self) -> None:
        """Run the loop once more."""
        self._taken.append(loop_seconds())

    @property
    def quickest_seconds(self) -> float:
        """Of the loop."""
        return min(self._taken)

    def even(self, seconds: float) -> float:
        """Give the seconds of a round, best of the quickest one, as those of the machine that the budgets are for."""
        return seconds * LOOP_SECONDS / self.quickest_seconds
