"""What the fixtures hand out. Loaded with the first test that asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.cleanup import CleanupResult, Level
from pytest_gpuclean.model.memory import Snapshot
from pytest_gpuclean.plugin.options import LEVELS
from pytest_gpuclean.units import parse_choice

if TYPE_CHECKING:
    from pytest_gpuclean.memory.peaks import Peak
    from pytest_gpuclean.plugin.by_hand import ByHand


class Handle:
    """What the `gpu_clean` fixtures hand out: look at memory, clean, and judge, from inside a test."""

    def __init__(self, by_hand: ByHand | None, name: str) -> None:
        """Set the handle up; one that nobody does anything for is inert (`--gpu-clean=off`)."""
        self._by_hand = by_hand
        self._name = name
        self.since: Peak | None = None
        """Sees the most that is in use from the fixture's setup on."""
        self._callables: list[Callable[[], object]] = []

    def snapshot(self) -> Snapshot:
        """Read what is in use now on every device that is watched."""
        return self._by_hand.snapshot() if self._by_hand else Snapshot()

    def clean(self, level: Level = "comprehensive") -> CleanupResult:
        """Clean now, and tell what each step gave back.

        Args:
            level: `quick` or `comprehensive`.

        Raises:
            ValueError: where the level is neither.
        """
        parse_choice(level, LEVELS, f"{self._name}.clean()")
        return self._by_hand.clean(level) if self._by_hand else CleanupResult(level=level)

    @property
    def peak(self) -> int | Unavailable:
        """The most memory in bytes that a device had allocated since the fixture's setup; the largest of all devices.

        `Unavailable` with the reason where no source keeps a peak, as for host memory.
        """
        if self._by_hand is None:
            return Unavailable("peak", "--gpu-clean=off")
        now = self.snapshot()
        peaks = self._by_hand.highest(self.since, now)
        if peaks:
            return max(peaks.values())
        if any(reading.peak_bytes is not None for reading in now.readings):
            return Unavailable("peak", "the one peak that the framework keeps for the whole run was not exceeded")
        return Unavailable("peak", "no device in use keeps a peak")

    def on_cleanup(self, function: Callable[[], object]) -> Callable[[], object]:
        """Call a function at the cleanup that ends this fixture's scope, the last one given first.

        Args:
            function: takes no arguments. What it raises is recorded, and the other steps go on.

        Returns:
            The function, so that this works as a decorator.
        """
        if not callable(function):
            raise TypeError(f"{self._name}.on_cleanup(): {function!r} is not callable")
        self._callables.append(function)
        return function

    def disown(self, pid: int) -> None:
        """Let a process go on that the test has started, with what is below it: nobody stops it at the end.

        Args:
            pid: its number.

        Raises:
            ValueError: where it is no process that this run has started.
        """
        if self._by_hand is not None:
            self._by_hand.disown(pid)

    @contextmanager
    def no_leak(self, threshold: str | int | None = None) -> Iterator[None]:
        """Fail where the block leaves more memory than it began with.

        Args:
            threshold: the largest growth that passes, as in `--gpu-leak-threshold`; its value by default.
        """
        if self._by_hand is None:
            yield
            return
        with self._by_hand.no_leak(threshold, self._name):
            yield

    def end(self) -> None:
        """Clean when the test's window closes: its fixture's scope ends."""
        if self._by_hand is not None:
            self._by_hand.end(self)

    def take_callables(self) -> list[Callable[[], object]]:
        """Hand over what is to be called, the last one given first."""
        taken, self._callables = self._callables[::-1], []
        return taken
