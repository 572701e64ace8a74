"""Errors that stick: which device is lost, since which test, what came of it, and how the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import pytest

from pytest_gpuclean.memory.failures import Failure, says_lost
from pytest_gpuclean.memory.health import Answer
from pytest_gpuclean.model.records import DeviceFailure
from pytest_gpuclean.plugin.telling import attach_failure
from pytest_gpuclean.reports.failures import consequence_text, is_same_device, lost_text

OnLost = Callable[[pytest.Item, pytest.TestReport, DeviceFailure], None]
"""Does what `--gpu-on-lost` says, once a device is lost."""


class Books(Protocol):
    """Who has to know that a device is lost: an engine."""

    def lose(self, device: str, reason: str) -> None:
        """Judge and clean nothing on it any more."""

    def regain(self, device: str) -> None:
        """Take it in again."""

    def devices(self) -> Sequence[str]:
        """Name the devices in use."""


class LostDevices:
    """Keeps which devices are lost, and tells it on the reports of the tests that fail."""

    def __init__(
        self, ask: Callable[[], Sequence[Answer]], books: Books, on_lost: OnLost, *, only_reports: bool
    ) -> None:
        """Set it up.

        Args:
            ask: asks the devices in use whether they answer.
            books: has to know.
            on_lost: goes on as the run's options say.
            only_reports: whether that is: as if nothing had happened.
        """
        self._only_reports = only_reports
        self._ask = ask
        self._books = books
        self._on_lost = on_lost
        self._by_device: dict[str, DeviceFailure] = {}

    @property
    def is_any(self) -> bool:
        """Whether a device of this process is lost."""
        return bool(self._by_device)

    def look(self, item: pytest.Item, report: pytest.TestReport, failure: Failure | None) -> bool:
        """Look whether devices answer after a failure, and tell on its report; True where one does not.

        Args:
            item: the test that failed.
            report: of the phase that failed.
            failure: what its error says, if anything.
        """
        says_so = failure is not None and failure.kind == "device_lost" and not failure.is_forwarded
        answers = self._ask()
        new = self._take_in(item, failure if says_so else None, answers)
        self._tell_new(item, report, new)
        if not new:
            self._tell_consequence(item, report, failure)
        silent = ", ".join(answer.device for answer in answers if answer.is_silent)
        if silent:
            report.sections.append(("gpuclean", f"gpuclean: {silent} did not answer in time: it may still be at work"))
        return self.is_any

    def look_after(self, item: pytest.Item, report: pytest.TestReport, problems: Sequence[str]) -> None:
        """Look whether devices answer where a cleanup's step says that one does not."""
        said = next((problem for problem in problems if says_lost(problem)), None)
        if said is None:
            return
        new = self._take_in(item, Failure(kind="device_lost", error=said), self._ask())
        self._tell_new(item, report, new)

    def _take_in(self, item: pytest.Item, said: Failure | None, answers: Sequence[Answer]) -> list[DeviceFailure]:
        """Take in who answers and who does not; give those that are newly lost."""
        found = {answer.device: answer.error for answer in answers if answer.error}
        for answer in answers:
            if not (answer.error or answer.is_silent) and answer.device in self._by_device:
                del self._by_device[answer.device]
                self._books.regain(answer.device)
        if said is not None and not answers:  # nobody can be asked: the error is believed where a device is in use
            found = {device: said.error for device in self._books.devices() if is_same_device(said.device, device)}
        new = []
        for device, error in found.items():
            if device not in self._by_device:
                lost = DeviceFailure(
                    test=item.nodeid, kind="lost", device=device, error=said.error if said is not None else error
                )
                self._by_device[device] = lost
                self._books.lose(device, f"is lost since {item.nodeid}: {lost.error}")
                new.append(lost)
        return new

    def _tell_new(self, item: pytest.Item, report: pytest.TestReport, new: Sequence[DeviceFailure]) -> None:
        for lost in new:
            report.sections.append(("gpuclean", lost_text(lost, with_option=self._only_reports)))
            attach_failure(report, lost)
        if new:
            self._on_lost(item, report, new[0])

    def _tell_consequence(self, item: pytest.Item, report: pytest.TestReport, failure: Failure | None) -> None:
        named = failure.device if failure is not None else ""
        lost = next((lost for device, lost in self._by_device.items() if is_same_device(named, device)), None)
        if lost is None:
            return
        is_certain = failure is not None and (failure.kind == "device_lost" or failure.is_doubtful)
        if lost.test == item.nodeid:  # it runs again, or its teardown fails too
            attach_failure(report, lost)
        elif is_certain:
            consequence = DeviceFailure(
                test=item.nodeid, kind="consequence", device=lost.device, error=lost.error, cause=lost.test
            )
            report.sections.append(("gpuclean", consequence_text(consequence)))
            attach_failure(report, consequence)
        else:
            report.sections.append(
                ("gpuclean", f"gpuclean: {lost.device} is lost since {lost.test}: this may come of it")
            )
