"""The leaks that are known, as each process of a run has them: a worker gets them from its controller."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.leaks.baseline import Acquaintance, Known
from pytest_gpuclean.plugin.baseline_file import MOST_BYTES, baseline_text, parse_baseline
from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.reports.files import check_target, read_file

INPUT = "gpuclean_baseline"
"""In what a worker gets: another machine may not have the file."""


@dataclass(slots=True)
class Baseline:
    """A file of known leaks."""

    path: str
    known: tuple[Known, ...]
    met: Acquaintance = field(init=False)
    """What this process has met of them."""

    def __post_init__(self) -> None:
        self.met = Acquaintance(self.known)

    @property
    def name(self) -> str:
        """What to call it."""
        return os.path.basename(self.path)

    def wire(self) -> str:
        """Write it for a worker."""
        return baseline_text(self.known)


def baseline_of(config: pytest.Config, settings: Settings) -> Baseline | None:
    """Read the known leaks of a run; None where it has none.

    Raises:
        pytest.UsageError: where the file is missing, broken or cannot be written.
    """
    if not settings.baseline or settings.silenced:
        return None
    sent = getattr(config, "workerinput", {}).get(INPUT)
    source = "--gpu-leak-baseline"
    try:
        if sent is not None:
            return Baseline(settings.baseline, parse_baseline(sent, source))
        if settings.updates_baseline:
            check_target(settings.baseline, source)
        if settings.updates_baseline and not os.path.lexists(settings.baseline):
            return Baseline(settings.baseline, ())
        if not os.path.lexists(settings.baseline):
            raise InputError(
                f"{source}: {settings.baseline!r} is not there; make it with --gpu-leak-update-baseline beside this"
            )
        text = read_file(settings.baseline, MOST_BYTES, source)
        return Baseline(settings.baseline, parse_baseline(text, f"{source}: {os.path.basename(settings.baseline)}"))
    except InputError as error:
        raise pytest.UsageError(str(error)) from None
