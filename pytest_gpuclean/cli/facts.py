"""What can be measured and done on this machine, and what cannot, with the reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pytest_gpuclean.cleanup.system import CACHES_FILE
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.run_folder import NoLedger, folders_of, opened_folder
from pytest_gpuclean.processes.subreaper import adopts_orphans
from pytest_gpuclean.processes.tier import read_tier

_FRAMEWORKS = {
    "torch": ("torch",),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-gpu"),
    "jax": ("jax",),
    "cupy": ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy-rocm-5-0"),
}
"""Each by the names of the packages that bring it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that can or cannot be measured or done here."""

    what: str
    is_possible: bool
    detail: str
    """How, or why not."""


def facts(cards: object, procfs: Procfs | None = None) -> Iterator[Fact]:
    """Find out what is possible here. Nothing is imported, initialised or changed for it.

    Args:
        cards: what came of asking the driver.
        procfs: where processes are read.
    """
    if isinstance(cards, Unavailable):
        yield Fact(what="GPU memory of the machine", is_possible=False, detail=cards.reason)
    else:
        yield Fact(what="GPU memory of the machine", is_possible=True, detail="by NVIDIA's driver")
    yield from _frameworks()
    yield _heap()
    yield _processes(procfs or Procfs())
    yield _ledger()
    yield _drop_caches()
    smi = shutil.which("nvidia-smi")
    yield Fact(
        what="gpu-reset",
        is_possible=smi is not None,
        detail=f"by {smi}, as root, while nobody uses a GPU" if smi else "nvidia-smi is not there",
    )


def _frameworks() -> Iterator[Fact]:
    for name, packages in _FRAMEWORKS.items():
        version = next((found for package in packages if (found := _version_of(package))), None)
        detail = f"{version}; read in a run that has imported it" if version else "it is not installed"
        yield Fact(what=f"memory of {name}", is_possible=version is not None, detail=detail)


def _version_of(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _heap() -> Fact:
    what = "host memory"
    try:
        from psutil import heap_info
    except ImportError:
        return Fact(what=what, is_possible=False, detail="psutil.heap_info() needs psutil 7.2 on glibc, macOS, Windows")
    read: Callable[[], object] = heap_info
    try:
        read()
    except Exception as error:
        return Fact(what=what, is_possible=False, detail=f"{type(error).__name__}: {error}")
    return Fact(what=what, is_possible=True, detail="by the heap of each run, and its tensors and arrays")


def _processes(procfs: Procfs) -> Fact:
    reason = None if adopts_orphans() is not None else "there is no subreaper here"
    limits = read_tier(procfs, no_subreaper=reason).limits
    detail = "; ".join(limits) or "all that a run starts is proved to be its own, and stopped"
    return Fact(what="processes", is_possible=not limits, detail=detail)


def _ledger() -> Fact:
    what = "what killed runs leave"
    reasons = []
    for path in folders_of():
        with opened_folder(path, create=False) as folder:
            if not isinstance(folder, NoLedger) or not os.path.lexists(path):
                return Fact(what=what, is_possible=True, detail=f"by the ledgers in {path}")
            reasons.append(folder.reason)
    return Fact(what=what, is_possible=False, detail="; ".join(reasons) or "this needs Linux")


def _drop_caches() -> Fact:
    if os.access(CACHES_FILE, os.W_OK):
        return Fact(what="drop-caches", is_possible=True, detail=f"by {CACHES_FILE}")
    detail = "this needs root" if os.path.exists(CACHES_FILE) else "this needs Linux"
    return Fact(what="drop-caches", is_possible=False, detail=detail)
