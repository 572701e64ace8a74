"""Which GPUs there are to hand out, as the variables name them that make them visible."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_gpuclean.memory.cards import Card
from pytest_gpuclean.memory.cuda_visible import ORDER_VARIABLE, read_visible
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.units import format_size

CUDA = "CUDA_VISIBLE_DEVICES"
_OTHERS = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
"""In this order: HIP's numbers count within what ROCR shows."""
VARIABLES = (CUDA, *_OTHERS)
"""All that make GPUs visible, of all makers."""


@dataclass(frozen=True, slots=True)
class Assignable:
    """One GPU to hand out."""

    value: str
    """What the variable is to say: `2`, `GPU-8f6c...`, `MIG-3b1d...`."""
    about: str = ""
    """`NVIDIA H100, 79.6 GiB`; empty where that is not known."""

    def __str__(self) -> str:
        return f"GPU {self.value}{f' ({self.about})' if self.about else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignables:
    """All GPUs that the caller has made visible."""

    variables: tuple[str, ...] = (CUDA,)
    """Those that say which are visible; more than one where the caller has set several to the same."""
    gpus: tuple[Assignable, ...] = ()
    problem: str = ""
    """Why there are none, or fewer than somebody expects."""


def assignable(
    devices: Sequence[Card] | Unavailable, environ: Mapping[str, str], *, nvidia: int = 0, amd: int = 0
) -> Assignables:
    """List the GPUs to hand out.

    Args:
        devices: every card of the machine, as NVML has it.
        environ: where the variables are read that hide some.
        nvidia: how many NVIDIA cards show in the file system.
        amd: how many AMD cards do.
    """
    if not isinstance(devices, Unavailable) and (devices or CUDA in environ):
        return _of_nvml(devices, environ)
    for variable in VARIABLES:
        if variable in environ and (variable != CUDA or nvidia or not any(other in environ for other in _OTHERS)):
            return _of_text(variable, environ)
    count, variable = (nvidia, CUDA) if nvidia else (amd, _OTHERS[0])
    gpus = tuple(Assignable(str(index)) for index in range(count))
    reason = devices.reason if isinstance(devices, Unavailable) else ""
    return Assignables(variables=(variable,), gpus=gpus, problem="" if gpus else reason or "there is no GPU here")


def nvidia_files() -> tuple[str, ...]:
    """List the numbers of the NVIDIA cards that show in the file system."""
    return tuple(sorted((path.removeprefix("/dev/nvidia") for path in glob.glob("/dev/nvidia[0-9]*")), key=int))


def amd_nodes(root: str = "/sys/class/kfd/kfd/topology/nodes") -> int:
    """Count the AMD cards that the kernel's compute driver knows; its other nodes are processors.

    Args:
        root: the folder of the nodes.
    """
    count = 0
    for path in glob.glob(os.path.join(glob.escape(root), "*", "gpu_id")):
        try:
            with open(path, encoding="ascii") as file:
                count += file.read().strip() not in ("", "0")
        except (OSError, ValueError):  # a card that this process may not use
            continue
    return count


def entries_of(text: str) -> tuple[str, ...]:
    """Split a variable as the drivers do: `-1`, or an empty entry, ends it."""
    entries: list[str] = []
    for entry in map(str.strip, text.split(",")):
        if not entry or re.fullmatch(r"-\d+", entry):
            break
        entries.append(entry)
    return tuple(entries)


def _of_text(variable: str, environ: Mapping[str, str]) -> Assignables:
    text = environ[variable]
    entries = entries_of(text)
    problem = "" if entries else f"{variable}={text!r} shows none"
    if len(set(entries)) < len(entries):
        entries, problem = (), f"{variable}={text!r} names a GPU twice"
    gpus = tuple(map(Assignable, entries))
    return Assignables(variables=_alike(variable, environ), gpus=gpus, problem=problem)


def _of_nvml(devices: Sequence[Card], environ: Mapping[str, str]) -> Assignables:
    text, order = environ.get(CUDA), environ.get(ORDER_VARIABLE)
    visible = read_visible(text, devices, order)
    if text is None:
        gpus = _unnamed(devices, is_sure=not visible.note)
        return Assignables(gpus=gpus, problem="" if gpus else "there is no GPU here")
    if not visible.cards:
        return Assignables(problem=visible.problem or f"{CUDA}={text!r} shows none")
    gpus = ()
    for entry in map(str.strip, text.split(",")):
        found = read_visible(entry, devices, order)
        if not found.cards:
            break
        gpus += _named(entry, found.cards[0], devices, is_sure=not found.note)
    return Assignables(variables=_alike(CUDA, environ), gpus=gpus, problem=visible.problem)


def _unnamed(devices: Sequence[Card], *, is_sure: bool) -> tuple[Assignable, ...]:
    usable = [card for card in devices if not card.is_barred and not card.is_partitioned]
    # By number as long as the number says which: not every library understands UUIDs.
    whole = [card for card in usable if not card.is_mig]
    if is_sure and len(whole) == len(usable):
        return tuple(Assignable(str(index), _about(card)) for index, card in enumerate(whole))
    return tuple(Assignable(card.uuid, _about(card)) for card in usable if card.uuid)


def _named(entry: str, card: Card, devices: Sequence[Card], *, is_sure: bool) -> tuple[Assignable, ...]:
    if card.is_mig and not entry.startswith("MIG-"):  # a whole card, of which CUDA shows instances, one a process
        instances = [other for other in devices if other.is_mig and other.parent_uuid == card.parent_uuid]
        return tuple(Assignable(other.uuid, _about(other)) for other in instances if other.uuid)
    return (Assignable(entry, _about(card) if is_sure else ""),)


def _about(card: Card) -> str:
    total = "" if card.total_bytes is None else format_size(card.total_bytes)
    return ", ".join(filter(None, (card.name, total)))


def _alike(variable: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """List the variables that a caller has set to the same, for libraries of several makers."""
    text = environ[variable]
    return (variable, *(other for other in VARIABLES if other != variable and environ.get(other) == text))
