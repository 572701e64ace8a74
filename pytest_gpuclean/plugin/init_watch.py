"""`--gpu-init`: who initialises a device while tests are only collected, or in a controller, which runs none.

Such a process pays for a context (some hundred MiB of each device) that no test of its own uses, and what it forks
cannot use the device at all.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from pytest_gpuclean.memory.initialised import InitTrace, initialised_devices
from pytest_gpuclean.plugin.guard import guard_of
from pytest_gpuclean.plugin.settings import settings_of
from pytest_gpuclean.plugin.telling import is_controller, is_worker

_OUTPUT = "gpuclean_init"
_ADVICE = "  do that in a fixture or a test: here it costs a context in every process, and what is forked cannot use it"


class InitWatch:
    """Looks, after each file that pytest imports, whether a device has been initialised."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._trace = InitTrace(str(config.rootpath))
        self._known = set(initialised_devices())  # by whoever has started this run
        self._lines: list[str] = []
        self._guard = guard_of(config, "--gpu-init is not looked after as it should")
        self._is_elsewhere = False
        """Whether a worker has found something."""
        self._trace.begin()
        config.add_cleanup(partial(self._guard.call, self._trace.end))

    def pytest_configure(self, config: pytest.Config) -> None:
        """Bring up what prints the summary: it has to be there before the run's end."""
        with self._guard:
            from pytest_gpuclean.plugin.coming_up import tell

            tell(config)

    # -- where it may happen ------------------------------------------------------------------------------------

    def pytest_plugin_registered(self, plugin: object) -> None:
        """Look after each conftest, and each other module with hooks, that was imported."""
        with self._guard:
            file = vars(plugin).get("__file__") if isinstance(plugin, ModuleType) else None
            if isinstance(file, str):
                self._look(f"at the import of {self._relative(file)}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        """Look after the hooks of others that begin a run."""
        with self._guard:
            self._look("as the run was configured")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, Any, Any]:
        """Look after each file of tests that was imported."""
        report = yield
        with self._guard:
            if isinstance(collector, pytest.File):
                self._look(f"at the collection of {self._relative(str(collector.path))}")
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        """Look for the last time in a process that runs tests: they may initialise what they like.

        A controller collects none, and is looked at to its end.
        """
        with self._guard:
            self._look("at collection")
        with self._guard:
            self._trace.end()

    # -- how it is told -----------------------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take in what a worker has found; its lines come with its other notes."""
        output = getattr(node, "workeroutput", None) or {}
        self._is_elsewhere = self._is_elsewhere or bool(output.get(_OUTPUT))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Have it in the summary, and fail the run where that was asked for."""
        with self._guard:
            self._finish(session)

    def _finish(self, session: pytest.Session) -> None:
        from pytest_gpuclean.plugin.coming_up import tell

        if is_controller(self._config):
            self._look("in the controller of the workers")
        self._trace.end()
        for line in [*self._lines, *([_ADVICE] if self._lines else [])]:
            tell(self._config).add_note(line)
        if is_worker(self._config):
            self._config.workeroutput[_OUTPUT] = bool(self._lines)  # type: ignore[attr-defined]
        found = self._lines or self._is_elsewhere
        harmless = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if found and settings_of(self._config).init_mode == "fail" and session.exitstatus in harmless:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    # -- steps --------------------------------------------------------------------------------------------------

    def _look(self, when: str) -> None:
        if not self._trace.is_open:
            return
        for device in initialised_devices():
            if device not in self._known:
                self._known.add(device)
                place = self._trace.places.get(device)
                self._lines.append(f"INIT {device} was initialised {when}{f', by {place}' if place else ''}")

    def _relative(self, path: str) -> str:
        return path.removeprefix(f"{self._config.rootpath}/")
