"""What a way of giving memory back looks like, and on what occasion it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pytest_gpuclean.model.cleanup import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """Why a cleanup runs, so that each step can tell whether it is worth its cost."""

    level: Level
    moved: bool = True
    """Whether more memory is in use than when the window was opened."""
    allocated: bool = True
    """Whether the window allocated at all, also where everything was freed again."""
    boundary: bool = True
    """Whether a module or the session ends here, or somebody asked by hand: the time for what is dear."""
    suspected: bool = False
    """Whether a leak is still suspected after the cheaper steps."""
    unused: frozenset[str] = frozenset()
    """Devices on which torch has never allocated by the latest reading, such as `cuda:3`; others may be unused too."""
    lost: str = ""
    """Which device answers no more, and why; empty where all are well. Steps that call a driver are skipped then."""

    @property
    def comprehensive(self) -> bool:
        """Whether the level is comprehensive."""
        return self.level == "comprehensive"

    @property
    def thorough(self) -> bool:
        """Whether what makes later tests slower (compile caches) may be cleared now."""
        return self.suspected or (self.comprehensive and self.boundary)


@dataclass(frozen=True, slots=True)
class Skip:
    """A step that did not run, and why."""

    reason: str


class RefusedError(Exception):
    """A step that was asked for by name and cannot be done here. Its text is the reason, as it is told."""


@runtime_checkable
class Cleaner(Protocol):
    """Gives back what one framework or cache holds.

    It looks frameworks up in `sys.modules` and never imports one. It may raise: the error is recorded, and the
    other cleaners go on. One whose gain shows in a later step alone may say so with an attribute
    `is_measured = False`, and saves a reading. One that calls a device's driver says `calls_driver = True`, and is
    skipped where a device is lost.
    """

    name: str

    def clean(self, occasion: Occasion) -> str | Skip:
        """Do it and say in a few words what was done, or say why not."""
