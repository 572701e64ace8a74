"""TensorBoard: it ends in 70 ms on SIGINT; SIGKILL leaves its info file, which the next start believes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat

from pytest_gpuclean.processes.families.interface import Command, Stopped
from pytest_gpuclean.processes.families.shapes import program, python_call

_MODULES = ("tensorboard", "tensorboard.main")


class TensorBoard:
    """The server by its script or by `-m`, as `manager.start` and the notebook magic start it, and its data server."""

    name = "TensorBoard"
    first_signal = signal.SIGINT
    grace_seconds = 2.0
    tree_at_once = True
    goes_with_parent = False
    left_alone = ""
    until_run_ends = False
    spares_children = False

    def recognizes(self, command: Command) -> bool:
        if program(command) == "tensorboard":
            return True
        if is_data_server(command):
            return True
        call = python_call(command)
        if call is None:
            return False
        return (
            call.is_module(*_MODULES)
            or call.script in ("tensorboard", "tensorboard.exe")
            or (call.kind == "script" and call.target.endswith(("tensorboard/main.py", "tensorboard/__main__.py")))
        )

    def after(self, stopped: Stopped) -> str:
        """Remove its info file: `manager.start` would hand out the dead server (`StartReused`)."""
        folder = next((value for name in ("TMPDIR", "TEMP", "TMP") if (value := stopped.command.environ.get(name))), "")
        path = os.path.join(folder or "/tmp", ".tensorboard-info", f"pid-{stopped.pid}.info")
        if not _describes(path, stopped):
            return ""
        with contextlib.suppress(OSError):
            os.unlink(path)
            return f"removed {path}"
        return f"{path} could not be removed"


def is_data_server(command: Command) -> bool:
    """Tell whether it is the process that reads the logs for a TensorBoard, as its child."""
    return bool(command.argv) and command.argv[0].endswith("tensorboard_data_server/bin/server")


def _describes(path: str, stopped: Stopped) -> bool:
    """Tell whether an info file is this very server's: a later one may have its number, and have written anew."""
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return False
        with open(path, encoding="utf-8") as file:
            info = json.load(file)
        in_its_life = stopped.started_at - 1 <= info["start_time"] <= stopped.ended_at + 1
        return info["pid"] == stopped.pid and in_its_life and (info["port"] in stopped.ports or not stopped.ports)
    except (OSError, ValueError, KeyError, TypeError):
        return False


TENSORBOARD = TensorBoard()
