"""What the user may name to reach beyond the run's own: `tensorboard,ros2,port:6006,script:bag_test.py,drop-caches`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.processes.families.interface import Command
from pytest_gpuclean.processes.families.robots import COMMAND, DAEMON, LAUNCH, NODE
from pytest_gpuclean.processes.families.shapes import python_call
from pytest_gpuclean.processes.families.tensorboard import TENSORBOARD

Kind = Literal["tensorboard", "ros2", "port", "script", "drop-caches", "gpu-reset"]

_SYSTEM = ("drop-caches", "gpu-reset")
_PLAIN = ("tensorboard", "ros2", *_SYSTEM)
_RIGHT = "write tensorboard, ros2, port:N, script:NAME, drop-caches or gpu-reset, with commas between"
# Not Gazebo: it is used without ROS 2 as well. One that a launch has started goes with the launch.
_ROS2 = (LAUNCH, NODE, DAEMON, COMMAND)


@dataclass(frozen=True, slots=True)
class Selector:
    """One thing that the user has named."""

    kind: Kind
    port: int = 0
    script: str = ""
    """The file name of a Python script; never a path, and compared whole."""

    def __str__(self) -> str:
        return f"port:{self.port}" if self.port else f"script:{self.script}" if self.script else self.kind

    @property
    def means_processes(self) -> bool:
        """Whether it means processes; else memory of the whole machine."""
        return self.kind not in _SYSTEM

    @property
    def takes_what_is_below(self) -> bool:
        """Whether it means what the process has started too: a launch its nodes, a script its workers."""
        return self.kind in ("ros2", "script")

    def fits(self, command: Command) -> bool:
        """Tell whether a command line is what is meant, by its exact shape; a port is not told by it."""
        if self.kind == "tensorboard":
            return TENSORBOARD.recognizes(command)
        if self.kind == "ros2":
            return any(family.recognizes(command) for family in _ROS2)
        if self.kind == "script":
            call = python_call(command)
            return call is not None and call.script == self.script
        return False


def parse_selectors(value: object, source: str) -> tuple[Selector, ...]:
    """Read what the user has named.

    Args:
        value: a text with commas, or several of them.
        source: where it came from, named in the error.

    Raises:
        InputError: where it is anything else.
    """
    parts = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    words: list[object] = []
    for part in parts:
        words += part.split(",") if isinstance(part, str) else [part]
    if not words:
        raise InputError(f"{source}: nothing is named; {_RIGHT}")
    return tuple(dict.fromkeys(_parse(word, source) for word in words))


def _parse(word: object, source: str) -> Selector:
    text = word.strip() if isinstance(word, str) else ""
    if text in _PLAIN:
        return Selector(cast("Kind", text))
    kind, colon, name = text.partition(":")
    if colon and kind == "port":
        return Selector("port", port=_parse_port(name.strip(), text, source))
    if colon and kind == "script":
        return Selector("script", script=_parse_script(name.strip(), text, source))
    raise InputError(f"{source}: {word!r} cannot be named; {_RIGHT}")


def _parse_port(name: str, text: str, source: str) -> int:
    # At most five digits: the conversion of thousands takes seconds, or raises an error of another kind.
    if name.isascii() and name.isdecimal() and len(name) <= 5 and 1 <= int(name) <= 65535:
        return int(name)
    raise InputError(f"{source}: {text!r} names no port; write a number from 1 to 65535, such as port:6006")


def _parse_script(name: str, text: str, source: str) -> str:
    right = "write the file name of a Python script, such as script:bag_test.py"
    if not name or name in (".", ".."):
        raise InputError(f"{source}: {text!r} names no script; {right}")
    if "/" in name or "\\" in name:
        raise InputError(f"{source}: {text!r} names a path, and file names are compared; {right}")
    if "*" in name or "?" in name:
        raise InputError(f"{source}: {text!r} is a pattern, and names are compared whole; {right}")
    return name
