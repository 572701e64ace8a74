"""A guard around what the plugin itself does: its trouble is taken in, and never passed on to a test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest


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


def guard_of(config: pytest.Config, what: str) -> Guard:
    """Make a guard for what no test is the owner of. Options and markers that do not parse are no trouble of ours.

    Args:
        config: of the run.
        what: what is not done where there is trouble, as it is told: `the report files`.
    """

    def note(error: BaseException) -> None:
        # Every run of pytest makes a guard; few come into trouble.
        from pytest_gpuclean.plugin.trouble import trouble_of

        trouble_of(config).note(what, error)

    return Guard(note, pytest.UsageError)
