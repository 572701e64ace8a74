"""Trouble of the plugin itself: told at the end of the run."""

from __future__ import annotations

from typing import Any

import pytest

_PLUGIN_NAME = "gpuclean-trouble"
_OWN = "trouble of gpuclean itself"
_OUTPUT = "gpuclean_trouble"
"""In a worker's output."""


class Trouble:
    """Keeps what went wrong in parts that no test is the owner of, and tells it below everything else."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._texts: dict[str, None] = {}
        self._terminal: pytest.TerminalReporter | None = None
        """Once the summary is printed."""

    @property
    def is_any(self) -> bool:
        """Whether there was any."""
        return bool(self._texts)

    def note(self, what: str, error: BaseException) -> None:
        """Take in an error; the same again is told once.

        Args:
            what: what could not be done.
            error: why.
        """
        self.add(f"{_OWN}, {what}: {_line(error)}")

    def add(self, text: str) -> None:
        """Take in a line that says it all."""
        if self._terminal is not None and text not in self._texts:
            self._terminal.write_line(f"gpuclean: {text}", red=True)
        self._texts[text] = None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Send what a worker has to its controller."""
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output[_OUTPUT] = list(self._texts)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take in what a worker has sent."""
        self._texts.update(dict.fromkeys((getattr(node, "workeroutput", None) or {}).get(_OUTPUT, ())))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say it: all the others have had their chance to come into trouble."""
        for text in self._texts:
            terminalreporter.write_line(f"gpuclean: {text}", red=True)
        self._terminal = terminalreporter


def trouble_of(config: pytest.Config) -> Trouble:
    """Return what keeps the trouble of a run."""
    trouble: Trouble | None = config.pluginmanager.get_plugin(_PLUGIN_NAME)
    if trouble is None:
        trouble = Trouble(config)
        config.pluginmanager.register(trouble, _PLUGIN_NAME)
    return trouble


def own_problem(error: BaseException) -> str:
    """Say that a test was not looked after because of trouble of our own."""
    return f"{_OWN}: {_line(error)}"


def is_own(problem: str) -> bool:
    """Whether `own_problem` has said it."""
    return problem.startswith(_OWN)


def _line(error: BaseException) -> str:
    from pytest_gpuclean.memory.interface import first_line  # it comes with all probes: nobody else pays for them

    return first_line(error)
