"""Garbage collection, young generations first."""

from __future__ import annotations

import gc

from pytest_gpuclean.cleanup.interface import Occasion, Skip

_MAX_PASSES = 8
"""An object whose finalizer makes new garbage each time would go on for ever."""


class GarbageCleaner:
    """Collects until a pass frees nothing, the old generation only where it is worth it."""

    name = "garbage"

    def clean(self, occasion: Occasion) -> str | Skip:
        """Collect, and tell how many objects that freed."""
        full = occasion.thorough
        if not full and not occasion.moved and not (occasion.comprehensive and occasion.allocated):
            return Skip("no memory moved")
        collected = collect_all() if full else collect_young()
        return f"{collected} objects collected" if collected else Skip("there was no garbage")


def collect_young() -> int:
    """Collect the two young generations until a pass frees nothing; return how many objects went."""
    return _until_nothing(1)


def collect_all() -> int:
    """Collect all generations until a pass frees nothing; return how many objects went.

    What is young goes first: of the passes over everything, which take long, most often one is enough then.
    """
    return _until_nothing(1) + _until_nothing(2)


def collect_all_once() -> int:
    """Collect all generations in one pass; return how many objects went."""
    return gc.collect()


def _until_nothing(generation: int) -> int:
    total = 0
    for _ in range(_MAX_PASSES):
        # Finalizers of one pass let go of what only the next can free.
        freed = gc.collect(generation)
        total += freed
        if not freed:
            break
    return total
