"""What tests ask for by hand, through the fixtures: to look, to clean, to judge a block, to let a process go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_gpuclean.cleanup.callables import CallableCleaner
from pytest_gpuclean.cleanup.interface import Cleaner
from pytest_gpuclean.engine import Engine
from pytest_gpuclean.memory.peaks import Peak
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.cleanup import CleanupResult, Level
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.memory import Bytes, Snapshot
from pytest_gpuclean.plugin.guard import Guard
from pytest_gpuclean.plugin.outcome import LeakFailure
from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.reports.terminal import leak_text
from pytest_gpuclean.units import parse_size

if TYPE_CHECKING:
    from pytest_gpuclean.plugin.handle import Handle

_NOT_READ = Unavailable("gpuclean", "trouble of gpuclean itself")


class ByHand:
    """Does for the handles of the fixtures what they are asked for, and keeps what is due at the next cleanup.

    Args:
        engine: of this process.
        settings: of the run.
        note_trouble: takes in trouble of our own.
    """

    def __init__(self, engine: Engine, settings: Settings, note_trouble: Callable[[BaseException], None]) -> None:
        self._engine = engine
        self._settings = settings
        self._guard = Guard(note_trouble)
        self._guard_but_values = Guard(note_trouble, ValueError)
        self.due: list[Cleaner] = []
        """What is to run first at the next cleanup."""
        self.has_ended = False
        """Whether the scope of a handle has ended since the last cleanup."""

    def take_due(self) -> list[Cleaner]:
        """Hand over what is to run first."""
        taken, self.due = self.due, []
        return taken

    def run_due(self) -> None:
        """Run it now."""
        for cleaner in self.take_due():
            self._engine.run_step(cleaner)

    def begin(self) -> Peak | None:
        """Begin the peak of a handle that comes up."""
        peak = None
        with self._guard:
            peak, _ = self._engine.peaks.begin(self._engine.snapshot(), self._engine.snapshot)
        return peak

    def end(self, handle: Handle) -> None:
        """End a handle's scope: clean when the test's window closes."""
        with self._guard:
            self._end(handle)

    def _end(self, handle: Handle) -> None:
        if handle.since is not None:
            self._engine.peaks.end(handle.since)
        self.due += [CallableCleaner(function) for function in handle.take_callables()]
        self.has_ended = True
        if self._engine.window is None:  # asked for in the middle of a test that nothing else concerned
            self.run_due()
            self._engine.clean(self._settings.level or "quick")

    def snapshot(self) -> Snapshot:
        """Read what is in use now."""
        with self._guard:
            return self._engine.snapshot()
        return Snapshot(unavailable=(_NOT_READ,))

    def highest(self, since: Peak | None, now: Snapshot) -> Bytes:
        """Say what the most was since a handle came up; nothing where that is not known."""
        with self._guard:
            return since.highest(now) if since is not None else {}
        return {}

    def clean(self, level: Level) -> CleanupResult:
        """Clean now."""
        with self._guard:
            return self._engine.clean(level)
        return CleanupResult(level=level)

    def disown(self, pid: int) -> None:
        """Let a process go on that a test has started.

        Raises:
            ValueError: where it is none of the run's.
        """
        with self._guard_but_values:
            if self._engine.processes is not None:
                self._engine.processes.disown(pid)

    @contextmanager
    def no_leak(self, threshold: str | int | None, name: str) -> Iterator[None]:
        """Fail where a block leaks.

        Args:
            threshold: the largest growth that passes; the run's by default.
            name: of the handle, for messages.
        """
        size = self._settings.threshold_bytes
        if threshold is not None:
            size = parse_size(threshold, f"{name}.no_leak(): threshold")
        block = self._engine.block(size, name)
        leaks: list[Leak] | None = None
        with self._guard:
            leaks = block.__enter__()
        try:
            yield
        finally:
            with self._guard:
                if leaks is not None:
                    block.__exit__(None, None, None)
        if leaks:
            raise LeakFailure("\n".join(map(leak_text, leaks)), pytrace=False)
