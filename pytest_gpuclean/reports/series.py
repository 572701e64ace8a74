"""The tests of a long run in little room: columns of numbers, and objects for those with something to tell."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import get_args

from pytest_gpuclean.reports.data import DeviceUse, Outcome, TestEntry

_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_UNKNOWN = -1


class Names:
    """Short texts that come again and again, each by a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def number(self, name: str) -> int:
        """Give the number of a name, a new one where it is new."""
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._names)
            self._names.append(name)
        return number

    def __getitem__(self, number: int) -> str:
        return self._names[number]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)


class Series:
    """Takes entries in, and gives them back as often as they are asked for."""

    def __init__(self) -> None:
        self._tests: list[str] = []
        """The texts of the runner's own reports, which live on anyway."""
        self._workers, self._devices = Names(), Names()
        self._worker = array("H")
        self._attempt = array("H")
        self._outcome = array("B")
        self._times = array("d")
        """Of each entry: when it began, how long it took, what of that was the plugin's."""
        self._given_back = array("q")
        self._uses_end = array("Q")
        """Of each entry: where its uses end."""
        self._uses = array("q")
        """Of each use: device, begin, end, reserved, peak."""
        self._told: dict[int, TestEntry] = {}
        """What has more to tell than numbers."""

    def __len__(self) -> int:
        return len(self._tests)

    def append(self, entry: TestEntry) -> None:
        """Take in an entry."""
        if entry.leaks or entry.left or entry.problems:
            self._told[len(self._tests)] = entry
        self._tests.append(entry.test)
        self._worker.append(self._workers.number(entry.worker))
        self._attempt.append(min(entry.attempt, 2**16 - 1))
        self._outcome.append(_OUTCOMES.index(entry.outcome))
        self._times.extend((entry.started_at, entry.seconds, entry.cost_seconds))
        self._given_back.append(entry.given_back_bytes)
        for use in entry.memory:
            peak = _UNKNOWN if use.peak_bytes is None else use.peak_bytes
            device = self._devices.number(use.device)
            self._uses.extend((device, use.begin_bytes, use.end_bytes, use.reserved_bytes, peak))
        self._uses_end.append(len(self._uses))

    def __iter__(self) -> Iterator[TestEntry]:
        for number in range(len(self._tests)):
            yield self._told.get(number) or self._entry(number)

    def workers(self) -> tuple[str, ...]:
        """Name the workers that there were."""
        return tuple(sorted(filter(None, self._workers)))

    def _entry(self, number: int) -> TestEntry:
        started_at, seconds, cost_seconds = self._times[3 * number : 3 * number + 3]
        return TestEntry(
            test=self._tests[number],
            outcome=_OUTCOMES[self._outcome[number]],
            started_at=started_at,
            seconds=seconds,
            worker=self._workers[self._worker[number]],
            attempt=self._attempt[number],
            memory=tuple(self._uses_of(number)),
            given_back_bytes=self._given_back[number],
            cost_seconds=cost_seconds,
        )

    def _uses_of(self, number: int) -> Iterator[DeviceUse]:
        begin = self._uses_end[number - 1] if number else 0
        for at in range(begin, self._uses_end[number], 5):
            device, begin_bytes, end_bytes, reserved_bytes, peak = self._uses[at : at + 5]
            yield DeviceUse(
                device=self._devices[device],
                begin_bytes=begin_bytes,
                end_bytes=end_bytes,
                reserved_bytes=reserved_bytes,
                peak_bytes=None if peak == _UNKNOWN else peak,
            )
