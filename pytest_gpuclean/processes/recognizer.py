"""Of which family a process of the run is, asked of families that may be somebody else's and may break."""

from __future__ import annotations

from pytest_gpuclean.processes.command import read_command
from pytest_gpuclean.processes.discovery import OwnedProcess
from pytest_gpuclean.processes.families.interface import Command, Family, recognize
from pytest_gpuclean.processes.ownership import Run


class Recognizer:
    """Asks each family in turn. One that raises is passed over every time, and told once.

    Args:
        run: whose processes they are.
        families: all of them, in order.
    """

    def __init__(self, run: Run, families: tuple[Family, ...]) -> None:
        self._run = run
        self._families = families
        self._told: set[str] = set()
        self.problems: list[str] = []
        """What is to be told of families that have raised, until somebody takes it away from here."""

    def recognize(self, process: OwnedProcess) -> tuple[Command, Family | None]:
        """Give what a process was started as, and its family; None for one that is of none."""
        command = read_command(self._run.procfs, process.pid, self._run.pid)
        return command, recognize(self._families, command, self._tell_once)

    def _tell_once(self, family: Family, error: Exception) -> None:
        name = str(getattr(family, "name", type(family).__name__))
        if name not in self._told:
            self._told.add(name)
            self.problems.append(f"the family {name!r} could not look at a process: {type(error).__name__}: {error}")
