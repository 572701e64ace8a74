"""How a run goes on once a device is lost: as before, not at all, or in a new worker of pytest-xdist.

A worker ends between two tests, and its controller learns of it in three steps. The report of the test that broke
the device says so; the controller then sends that worker no more tests. The worker ends its session, with all that it
has to send (totals, coverage). What it had not begun goes to a new worker.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from pytest_gpuclean.model.records import DeviceFailure
from pytest_gpuclean.plugin import internals
from pytest_gpuclean.plugin.guard import guard_of
from pytest_gpuclean.plugin.lost import OnLost
from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.plugin.telling import Telling, is_controller, is_worker

_LEAVES = "gpuclean_leaves"
"""On a report, and in a worker's output: the worker ends, and wants to be replaced."""
_PLUGIN_NAME = "gpuclean-on-lost"
_LONGEST_WAIT_SECONDS = 5.0
_PAUSE_SECONDS = 0.005


def go_on_as(config: pytest.Config, settings: Settings, telling: Telling) -> OnLost:
    """Give what `--gpu-on-lost` does in this process."""
    mode = settings.on_lost or "report"
    if mode == "stop":
        return stop
    if mode != "replace":
        return report_alone
    reason = why_not_replaced(config)
    if reason:
        if not is_worker(config):
            telling.notes.append(f"--gpu-on-lost=replace {reason}: a lost device is only reported")
        return report_alone
    if is_controller(config):
        config.pluginmanager.register(Replacing(config, telling), _PLUGIN_NAME)
        return report_alone
    leaving = Leaving(config)
    config.pluginmanager.register(leaving, _PLUGIN_NAME)
    return leaving.leave


def why_not_replaced(config: pytest.Config) -> str:
    """Say why no worker can be replaced in this run; empty where one can."""
    if is_worker(config):  # which knows of its controller's options what that tells
        return "" if vars(config)["workerinput"].get(_LEAVES) else "is refused by the controller"
    if not is_controller(config):
        return "needs the workers of pytest-xdist"
    if getattr(config.option, "maxworkerrestart", None) == "0":
        return "needs more than --max-worker-restart=0"
    if getattr(config.option, "dist", "no") == "each":
        return "does not go with --dist=each"
    return ""


def report_alone(item: pytest.Item, report: pytest.TestReport, lost: DeviceFailure) -> None:
    """Go on with the next test."""


def stop(item: pytest.Item, report: pytest.TestReport, lost: DeviceFailure) -> None:  # noqa: ARG001
    """End the run after this test, with all reports."""
    if not item.session.shouldstop:
        item.session.shouldstop = f"gpuclean: {lost.device} is lost since {lost.test} (--gpu-on-lost=stop)"


class Leaving:
    """A worker that ends after the test that has broken its device."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._reason = ""
        self._guard = guard_of(config, "this worker does not leave as it should")

    def leave(self, item: pytest.Item, report: pytest.TestReport, lost: DeviceFailure) -> None:
        """End this worker after this test."""
        if not item.session.shouldstop:
            self._reason = f"gpuclean: {lost.device} is lost since {lost.test}"
            item.session.shouldstop = self._reason
            setattr(report, _LEAVES, self._reason)

    def pytest_sessionfinish(self) -> None:
        """Tell the controller that this is no end of the run, once it sends no more tests."""
        with self._guard:
            if self._reason:
                self._leave()

    def _leave(self) -> None:
        end = time.monotonic() + _LONGEST_WAIT_SECONDS
        while not internals.is_told_to_end(self._config) and time.monotonic() < end:
            time.sleep(_PAUSE_SECONDS)
        # xdist has noted there, just before, that the whole run shall stop.
        output = self._config.workeroutput  # type: ignore[attr-defined]
        output["shouldstop"] = False
        output[_LEAVES] = self._reason


class Replacing:
    """The controller of a run whose workers may end before their time."""

    def __init__(self, config: pytest.Config, telling: Telling) -> None:
        self._config = config
        self._telling = telling
        self._guard = guard_of(config, "a worker was not replaced as it should")
        self._replaced = 0
        said = getattr(config.option, "maxworkerrestart", None)
        self._most = int(said) if said is not None else 4 * int(getattr(config.option, "numprocesses", None) or 1)
        """As many as xdist itself restarts at most."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Let a worker know that it may leave."""
        node.workerinput[_LEAVES] = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send no more tests to a worker that ends."""
        with self._guard:
            if hasattr(report, _LEAVES):
                report.node.shutdown()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Let a new worker go on where one has ended by itself."""
        with self._guard:
            self._replace(node, error)

    def _replace(self, node: Any, error: object) -> None:
        reason = (getattr(node, "workeroutput", None) or {}).get(_LEAVES)
        if error is not None or not reason:
            return
        self._replaced += 1
        trouble = internals.replace_worker(self._config, node, may_start=self._replaced <= self._most)
        done = f"cannot be replaced, {trouble}" if trouble else "is replaced"
        self._telling.tell_line(f"worker {node.gateway.id} {done}: {reason.removeprefix('gpuclean: ')}")
