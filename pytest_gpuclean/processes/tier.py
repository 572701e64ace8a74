"""How much this system lets be seen and done. What is missing makes less be stopped, never somebody else's."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from pytest_gpuclean.processes.identity import has_pidfd
from pytest_gpuclean.processes.procfs import Procfs


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """What can be relied on here."""

    proc: bool
    """Whether /proc shows this process's own namespace."""
    children_files: bool
    """Whether the kernel lists the children of a process; without, every process is looked at for its parent."""
    pidfd: bool
    """Whether a process can be pinned; without, direct children alone are signalled."""
    subreaper: bool
    """Whether orphans stay descendants; without, they are known by their cookie and their ledger alone."""
    limits: tuple[str, ...] = ()
    """What is missing, a line each."""

    @property
    def is_full(self) -> bool:
        """Whether nothing is missing."""
        return not self.limits


def read_tier(procfs: Procfs, no_subreaper: str | None = None) -> Tier:
    """Find out what can be relied on.

    Args:
        procfs: where processes are read.
        no_subreaper: the reason why orphans are not adopted; None where they are.
    """
    pid = os.getpid()
    proc = procfs.shows(pid) and procfs.stat(pid) is not None
    children_files = proc and procfs.children(pid) is not None
    pidfd = has_pidfd()
    limits = []
    if not proc:
        limits.append(
            f"{procfs.root} does not show this process: direct children alone are looked after"
            if sys.platform == "linux"
            else f"{sys.platform}: direct children alone are looked after"
        )
    elif not children_files:
        limits.append("the kernel does not list children (CONFIG_PROC_CHILDREN): every look reads all processes")
    if not pidfd:
        limits.append("no pidfd: direct children alone are signalled, the others are told")
    if no_subreaper is not None:
        limits.append(f"orphans are not adopted ({no_subreaper}): they are known by cookie and ledger alone")
    return Tier(
        proc=proc,
        children_files=children_files,
        pidfd=pidfd,
        subreaper=no_subreaper is None,
        limits=tuple(limits),
    )
