"""How much of a suite a run has run: all of it, or less and why."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_gpuclean.plugin.guard import guard_of
from pytest_gpuclean.plugin.names import plain_name
from pytest_gpuclean.plugin.telling import DESELECTED, is_controller


class Extent:
    """Counts, in the run's controller, which tests were collected and which came to their end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._pending: set[str] = set()
        self.collected: set[str] = set()
        self.deselected = 0
        self._crashed: list[str] = []
        self._guard = guard_of(config, "what this run has run was not counted right")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what is going to run."""
        with self._guard:
            if not is_controller(self._config):
                self._collect(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Note what a worker has collected: each collects all of it."""
        with self._guard:
            if not self.collected.issuperset(ids):
                self._collect(ids)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Count what is left out."""
        self.deselected += len(items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note that a test has come to its end."""
        with self._guard:
            if report.when == "teardown":
                self._pending.discard(plain_name(self._config, report.nodeid))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Note a worker that has died, and what a worker left out."""
        with self._guard:
            output = getattr(node, "workeroutput", None)
            if error or output is None:
                self._crashed.append(str(node.gateway.id))
            else:
                self.deselected = max(self.deselected, output.get(DESELECTED, 0))

    def why_unfinished(self, session: pytest.Session) -> str:
        """Say why not all that was selected came to its end; empty where it did."""
        status = int(session.exitstatus)
        stopped = str(session.shouldfail or session.shouldstop or "")
        if status == pytest.ExitCode.INTERRUPTED and not stopped:
            return "it was interrupted"
        if status in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR):
            return f"it ended with exit status {status}"
        if stopped:
            return stopped
        if self._crashed:
            return f"{', '.join(self._crashed)} crashed"
        if self._pending:
            return f"{len(self._pending)} of {len(self.collected)} tests did not come to their end"
        return ""

    def _collect(self, ids: Any) -> None:
        ids = {plain_name(self._config, test) for test in ids}
        self._pending |= ids - self.collected
        self.collected |= ids
