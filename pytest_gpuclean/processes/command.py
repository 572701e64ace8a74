"""What a process is, for people and for the choice of how to stop it. Labels, all of it."""

from __future__ import annotations

import os

from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.families.interface import ENVIRON_NAMES, Command, Family
from pytest_gpuclean.processes.families.shapes import program, python_call
from pytest_gpuclean.processes.procfs import Procfs, value_in
from pytest_gpuclean.processes.secrets import without_secrets
from pytest_gpuclean.units import shorten

LONGEST_COMMAND = 120
_LONGEST_WORD = 40


def read_command(procfs: Procfs, pid: int, run_pid: int) -> Command:
    """Read what a process was started as; empty where it is gone or may not be looked at.

    Args:
        procfs: where to read.
        pid: the process.
        run_pid: the run, whose forks have its command line.
    """
    procfs.wait_for_exec(pid)
    stat = procfs.stat(pid)
    argv = procfs.argv(pid) or ()
    environ = procfs.environ(pid)
    found = {name: value for name in ENVIRON_NAMES if (value := value_in(environ, name)) is not None}
    image = procfs.image(pid)

    def is_fork_of(other: int) -> bool:
        return bool((image and image == procfs.image(other)) or (argv and argv == procfs.argv(other)))

    is_of_run = is_fork_of(run_pid)
    return Command(
        argv=argv,
        name=stat.name if stat else "",
        executable=procfs.executable(pid) or "",
        environ=found,
        is_fork=is_of_run or is_fork_of(stat.parent_pid if stat else 0),
        is_fork_of_run=is_of_run,
        image=image,
    )


def label(command: Command, family: Family | None = None) -> str:
    """Say in a few words what a process is: `TensorBoard`, `python train.py`, `sleep`.

    Args:
        command: the process.
        family: what it is known as.
    """
    if family is not None:
        return family.name
    call = python_call(command)
    if call is None:
        name = program(command) or os.path.basename(command.executable) or command.name or "process"
        return shorten(name, _LONGEST_WORD)
    target = {"script": os.path.basename(call.target), "module": f"-m {call.target}", "code": f"-c {call.target}"}
    return shorten(f"python {target[call.kind]}", _LONGEST_WORD)


def command_line(command: Command) -> str:
    """Write a command line in at most 120 characters, without secrets; the kernel's name in brackets where it has none.

    Args:
        command: the process.
    """
    # A command line may be megabytes long. A word is cut behind what could be shown of it.
    words = (word[: 2 * LONGEST_COMMAND] for word in command.argv[:LONGEST_COMMAND])
    text = shorten_command(" ".join(without_secrets(words)), LONGEST_COMMAND)
    return text or shorten(f"[{command.name}]", LONGEST_COMMAND)


def spared(
    pid: int,
    command: Command,
    family: Family | None = None,
    *,
    reason: str,
    started_by: str = "",
    ended_by: str = "",
) -> LeftProcess:
    """Tell of a process that was not signalled.

    Args:
        pid: its number.
        command: what it was started as.
        family: what it is known as.
        reason: why it was not.
        started_by: the test, the fixture or the run that started it; empty where that is not known.
        ended_by: `itself` where it has gone all the same.
    """
    return LeftProcess(
        pid=pid,
        name=label(command, family),
        command=command_line(command),
        started_by=started_by,
        ended_by=ended_by,
        reason=reason,
        is_spared=True,
    )


def shorten_command(text: str, longest: int) -> str:
    """Cut a command line off; where it is too long, the folders of its program and of its script go first.

    A virtual environment deep in a job's workspace would else leave nothing of the command to be seen.
    """
    if len(text) > longest:
        first, second, others = (*text.split(" ", 2), "", "")[:3]
        script = os.path.basename(second) if second.startswith("/") else second
        text = " ".join([os.path.basename(first), script, others]).rstrip(" ")
    return shorten(text, longest)
