"""Families of processes: how each is stopped in its own way, and which are left alone. The first that fits counts."""

from __future__ import annotations

from pytest_gpuclean.processes.families.interface import Family
from pytest_gpuclean.processes.families.robots import ROBOTS
from pytest_gpuclean.processes.families.servers import SERVERS
from pytest_gpuclean.processes.families.shared import KEPT, SHARED
from pytest_gpuclean.processes.families.tensorboard import TENSORBOARD
from pytest_gpuclean.processes.families.workers import WORKERS

FAMILIES: tuple[Family, ...] = (*SHARED, TENSORBOARD, *ROBOTS, *SERVERS, *WORKERS)


def families_with(others: tuple[Family, ...] = ()) -> tuple[Family, ...]:
    """Put the families of others in front; what the user keeps is kept before any of them is asked.

    Args:
        others: in their order.
    """
    return (KEPT, *others, *FAMILIES)
