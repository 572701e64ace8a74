"""Workers of multiprocessing, of data loaders and of pools that libraries start."""

from __future__ import annotations

import re
import signal

from pytest_gpuclean.processes.families.interface import Command, Kind
from pytest_gpuclean.processes.families.shapes import any_of, is_program, program, python_call, runs_code, runs_module

_SPAWNED = runs_code(r"from multiprocessing\.spawn import spawn_main\b")
_COMPILE_WORKER = re.compile(r".*torch/_inductor/compile_worker/__main__\.py")


def _is_spawned(command: Command) -> bool:
    call = python_call(command)
    # A frozen program calls itself with this argument in place of an interpreter.
    return _SPAWNED(command) or (call is None and "--multiprocessing-fork" in command.argv[1:])


def _is_data_worker(command: Command) -> bool:
    return command.name == "pt_data_worker" and (command.is_fork or _is_spawned(command))


def _is_wandb(command: Command) -> bool:
    return program(command) == "wandb-core" or any(word.startswith("wandb-service(") for word in command.argv[:1])


def _is_compile_worker(command: Command) -> bool:
    call = python_call(command)
    return call is not None and (
        (call.kind == "script" and _COMPILE_WORKER.fullmatch(call.target) is not None)
        or call.is_module("torch._inductor.compile_worker")
    )


RESOURCE_TRACKER = Kind(
    name="resource tracker",
    matches=runs_code(r"from (multiprocessing|[\w.]*loky\.backend)\.resource_tracker import main\b"),
    left_alone="it unlinks shared memory once the last process that uses it has ended, and ends then by itself",
)
COMPILE_WORKER = Kind(
    name="Inductor compile worker",
    matches=_is_compile_worker,
    left_alone="torch keeps it for the whole process: without it, the next compilation hangs",
    until_run_ends=True,
    spares_children=True,
)
LOKY = Kind(
    name="loky worker",
    matches=runs_module("loky.backend.popen_loky_posix", "joblib.externals.loky.backend.popen_loky_posix"),
    first_signal=signal.SIGTERM,
    left_alone="joblib keeps its pool for the whole process",
    until_run_ends=True,
    spares_children=True,
)
SHM_MANAGER = Kind(
    name="torch_shm_manager",
    matches=is_program({"torch_shm_manager"}),
    left_alone="it unlinks torch's shared memory once the last process that uses it has ended",
    until_run_ends=True,
)
WANDB = Kind(
    name="wandb service",
    matches=_is_wandb,
    left_alone="wandb keeps it for the whole process",
    until_run_ends=True,
)
SPARK = Kind(
    name="Spark gateway",
    matches=lambda command: program(command) == "java" and command.argv[-1:] == ("pyspark-shell",),
    first_signal=signal.SIGTERM,
    left_alone="PySpark keeps it for the whole process: without it, no later test gets a context",
    until_run_ends=True,
    spares_children=True,
)
# SIGINT would raise KeyboardInterrupt in a copy of the whole test run, which then writes reports of its own.
DATA_WORKER = Kind(
    name="DataLoader worker", matches=_is_data_worker, first_signal=signal.SIGTERM, goes_with_parent=True
)
SPAWNED = Kind(name="multiprocessing worker", matches=_is_spawned, first_signal=signal.SIGTERM, goes_with_parent=True)
FORKED = Kind(
    name="forked process",
    matches=lambda command: command.is_fork_of_run or (command.is_fork and python_call(command) is not None),
    first_signal=signal.SIGTERM,
    goes_with_parent=True,
)
FORKSERVER = Kind(
    name="multiprocessing forkserver",
    matches=any_of(runs_code(r"from multiprocessing\.forkserver import main\b")),
    first_signal=signal.SIGTERM,
    left_alone="multiprocessing starts its workers from it, and it ends with the run",
    until_run_ends=True,
)
# A worker of the forkserver has its command line: that it is a fork tells them apart.
WORKERS = (RESOURCE_TRACKER, COMPILE_WORKER, LOKY, SHM_MANAGER, WANDB, SPARK, DATA_WORKER, SPAWNED, FORKED, FORKSERVER)
