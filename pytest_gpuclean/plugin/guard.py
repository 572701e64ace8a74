"""Trouble of the plugin itself: taken in, told at the end of the run, and never passed on to a test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

_PLUGIN_NAME = "gpuclean-trouble"
_OWN = "trouble of gpuclean itself"
_OUTPUT = "gpuclean_trouble"
"""In a worker's output."""


class Guard:
    """Takes in our own trouble: it never changes the outcome of somebody's test.

    Args:
        note: takes the error.
        but: what is no trouble and passes through, such as an option that does not parse.
    """

    def __init__(self, note: Callable[[BaseException], None], but: type[Exception] | tuple[()] = ()) -> None:
        self._note = note
        self._but = but

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if error is None:
            return False
        if not isinstance(error, (Exception, SystemExit)) or isinstance(error, pytest.exit.Exception):
            return False
        if isinstance(error, self._but):
            return False
        with contextlib.suppress(Exception):  # the second trouble at once: the run comes before being told of it
            self._note(error)
        return True

    def call(self, function: Callable[[], object]) -> None:
        """Call something."""
        with self:
            function()


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


def guard_of(config: pytest.Config, what: str) -> Guard:
    """Make a guard for what no test is the owner of. Options and markers that do not parse are no trouble of ours.

    Args:
        config: of the run.
        what: what is not done where there is trouble, as it is told: `the report files`.
    """
    return Guard(lambda error: trouble_of(config).note(what, error), pytest.UsageError)


def _line(error: BaseException) -> str:
    from pytest_gpuclean.memory.interface import first_line  # it comes with all probes: nobody else pays for them

    return first_line(error)
