"""A cleanup between two readings: its steps, and whether there is anything for them to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pytest_gpuclean.cleanup import CLEANERS
from pytest_gpuclean.cleanup.interface import Cleaner, Occasion
from pytest_gpuclean.cleanup.runner import run_cleanup
from pytest_gpuclean.memory.gauge import in_use
from pytest_gpuclean.model.cleanup import CleanupResult
from pytest_gpuclean.model.memory import Snapshot


class Cleaning:
    """Runs the steps of a cleanup.

    Args:
        read: takes a reading.
        cleaners: the steps; all that are known by default.
    """

    def __init__(self, read: Callable[[], Snapshot], cleaners: Sequence[Cleaner] | None = None) -> None:
        self._read = read
        self._cleaners = list(cleaners) if cleaners is not None else [cleaner() for cleaner in CLEANERS]
        self.extra: list[Cleaner] = []
        """The steps of others, which run at every cleanup that is due."""

    def add(self, cleaners: Iterable[Cleaner]) -> None:
        """Add steps that run before the known ones."""
        self.extra += cleaners

    def run(
        self, occasion: Occasion, begin: Snapshot, first: Sequence[Cleaner] = ()
    ) -> tuple[CleanupResult, Snapshot] | None:
        """Run all steps, where there is anything to do; return what came of it, and the last reading.

        Args:
            occasion: why it runs.
            begin: the reading before.
            first: what the test itself has asked for.
        """
        is_due = occasion.moved or occasion.thorough or (occasion.comprehensive and occasion.allocated)
        if not (is_due or first or self.extra):
            return None
        return self.run_steps([*first, *self.extra, *self._cleaners], occasion, begin)

    def run_steps(
        self, steps: Iterable[Cleaner], occasion: Occasion, begin: Snapshot
    ) -> tuple[CleanupResult, Snapshot]:
        """Run some steps, whatever there is to do; return what came of it, and the last reading."""
        end = begin

        def read() -> dict[str, int]:
            nonlocal end
            end = self._read()
            return in_use(end)

        return run_cleanup(steps, occasion, in_use(begin), read), end
