"""What a family of processes looks like: how to stop what is already known to be the run's own.

A family never says whose a process is, nor that it is to be stopped: a command line is a label.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a process was started as."""

    argv: tuple[str, ...] = ()
    name: str = ""
    """As the kernel has it, at most 15 characters."""
    executable: str = ""
    """The path of the program, empty where it cannot be read."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Of its environment, the variables that a family may need: `ENVIRON_NAMES`."""
    is_fork: bool = False
    """Whether it is the program of its parent or of the run: forked, and nothing executed since."""
    is_fork_of_run: bool = False
    """Whether it is the program of the run itself: a copy of the whole test run, whatever title it has."""
    image: tuple[int, ...] = ()
    """Where its program lies in memory; empty where that is hidden."""


ENVIRON_NAMES = ("GPUCLEAN_KEEP", "TMPDIR", "TEMP", "TMP", "SCCACHE_START_SERVER")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A process that has ended, for what it leaves behind."""

    pid: int
    command: Command
    ports: tuple[int, ...]
    started_at: float
    """Seconds since 1970, to within a tenth."""
    ended_at: float


@runtime_checkable
class Family(Protocol):
    """How one kind of process is stopped. It may raise: the process is then stopped like any other."""

    @property
    def name(self) -> str:
        """Give what people call it."""

    @property
    def first_signal(self) -> signal.Signals:
        """Give what it ends in good order on."""

    @property
    def grace_seconds(self) -> float:
        """Give how long that may take, before it gets SIGTERM or SIGKILL."""

    @property
    def tree_at_once(self) -> bool:
        """Tell whether what is below it is signalled in the same moment; else it stops its children itself."""

    @property
    def goes_with_parent(self) -> bool:
        """Tell whether it is left to its parent to stop it, where that is stopped too."""

    @property
    def left_alone(self) -> str:
        """Give the reason why it is not stopped; empty where it is."""

    @property
    def until_run_ends(self) -> bool:
        """Tell whether it is left alone only until the run ends."""

    @property
    def spares_children(self) -> bool:
        """Tell whether what is below it is left alone too."""

    def recognizes(self, command: Command) -> bool:
        """Tell whether a process is of this kind, by the exact shape of its command line."""

    def after(self, stopped: Stopped) -> str:
        """Clear away what it left behind, and say in a few words what that was; empty where there was nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A family in a few values."""

    name: str
    matches: Callable[[Command], bool]
    first_signal: signal.Signals = signal.SIGINT
    grace_seconds: float = 2.0
    tree_at_once: bool = True
    goes_with_parent: bool = False
    left_alone: str = ""
    until_run_ends: bool = False
    spares_children: bool = False

    def recognizes(self, command: Command) -> bool:
        return self.matches(command)

    def after(self, stopped: Stopped) -> str:  # noqa: ARG002
        """Leave it: there is nothing to clear away."""
        return ""


def recognize(
    families: tuple[Family, ...], command: Command, on_error: Callable[[Family, Exception], None] = lambda *_: None
) -> Family | None:
    """Find the first family that knows a process; None for any other one.

    Args:
        families: in order; those of others come first, and one that raises is passed over.
        command: the process.
        on_error: told of one that raises.
    """
    for family in families:
        try:
            if family.recognizes(command):
                return family
        except Exception as error:
            on_error(family, error)
    return None
