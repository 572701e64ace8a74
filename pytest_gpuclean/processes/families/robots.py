"""ROS 2 and Gazebo. SIGINT to the launch and its whole tree at once takes 0.04 s; to the launch alone, 5 s."""

from __future__ import annotations

import re

from pytest_gpuclean.processes.families.interface import Command, Kind
from pytest_gpuclean.processes.families.shapes import any_of, is_program, program, python_call, runs_code, runs_script

_NODE = re.compile(r".*/lib/[^/]+/[^/]+")


def _is_launch(command: Command) -> bool:
    call = python_call(command)
    return call is not None and call.script == "ros2" and call.arguments[:1] == ("launch",)


def _is_command(command: Command) -> bool:
    call = python_call(command)
    return call is not None and call.script == "ros2" and call.arguments[:1] != ("launch",)


def _is_node(command: Command) -> bool:
    """`PREFIX/lib/PACKAGE/NAME ... --ros-args ...`: launch and `ros2 run` start every node so."""
    call = python_call(command)
    if call is None:
        return bool(command.argv) and _NODE.fullmatch(command.argv[0]) is not None and "--ros-args" in command.argv
    is_installed = call.kind == "script" and _NODE.fullmatch(call.target) is not None
    return "--ros-args" in call.arguments and (is_installed or call.target.endswith(".py") or call.kind == "module")


def _is_ruby_gz(command: Command) -> bool:
    """`gz sim` is a Ruby script; its server and its window keep the command line or call themselves `gz sim server`."""
    argv = command.argv
    if not argv:
        return False
    if re.fullmatch(r"ruby[\d.]*", program(command)):
        return len(argv) > 1 and argv[1].rpartition("/")[2] in ("gz", "ign")
    return program(command) in ("gz", "ign") or argv[0].startswith(("gz sim ", "ign gazebo "))


LAUNCH = Kind(name="ROS 2 launch", matches=_is_launch, grace_seconds=3.0)
NODE = Kind(name="ROS 2 node", matches=_is_node)
COMMAND = Kind(name="ros2 command", matches=_is_command)
DAEMON = Kind(
    name="ros2 daemon",
    matches=any_of(runs_code(r"from ros2cli\.daemon\.daemonize import main\b"), runs_script("_ros2_daemon")),
)
GAZEBO = Kind(
    name="Gazebo",
    # It traps SIGINT alone, and its children have process groups of their own.
    matches=any_of(_is_ruby_gz, is_program({"gzserver", "gzclient", "gazebo"})),
    grace_seconds=4.0,
)
ROBOTS = (LAUNCH, DAEMON, NODE, COMMAND, GAZEBO)
