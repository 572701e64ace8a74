"""What is left alone although the run started it: others use it too, or the user says so."""

from __future__ import annotations

from collections.abc import Callable

from pytest_gpuclean.processes.families.interface import Command, Kind
from pytest_gpuclean.processes.families.shapes import is_program, program

_GRADLE = "org.gradle.launcher.daemon.bootstrap.GradleDaemon"


def _is_kept(command: Command) -> bool:
    return command.environ.get("GPUCLEAN_KEEP") == "1"


def _is_tmux(command: Command) -> bool:
    # The server keeps the command line of the client that started it, and names itself.
    return program(command) == "tmux" and command.name.startswith("tmux: server")


def _is_screen(command: Command) -> bool:
    return program(command) == "SCREEN"


def _is_sccache(command: Command) -> bool:
    is_server = command.environ.get("SCCACHE_START_SERVER") == "1" or command.argv[1:] == ()
    return program(command) == "sccache" and is_server


def _is_gradle(command: Command) -> bool:
    return program(command) == "java" and _GRADLE in command.argv


def _is_bazel(command: Command) -> bool:
    return bool(command.argv) and command.argv[0].startswith(("bazel(", "blaze("))


def _is_adb(command: Command) -> bool:
    return program(command) == "adb" and "fork-server" in command.argv


def _shared(name: str, matches: Callable[[Command], bool]) -> Kind:
    return Kind(
        name=name, matches=matches, left_alone="a service that other programs of the user share", spares_children=True
    )


KEPT = Kind(name="kept", matches=_is_kept, left_alone="it bears GPUCLEAN_KEEP=1", spares_children=True)
SHARED = (
    _shared("ssh-agent", is_program({"ssh-agent"})),
    _shared("GnuPG service", is_program({"gpg-agent", "dirmngr", "keyboxd", "scdaemon"})),
    _shared("D-Bus", is_program({"dbus-daemon", "dbus-broker", "dbus-broker-launch"})),
    _shared("tmux server", _is_tmux),
    _shared("screen", _is_screen),
    _shared("sccache server", _is_sccache),
    _shared("Gradle daemon", _is_gradle),
    _shared("Bazel server", _is_bazel),
    _shared("adb server", _is_adb),
    _shared("CUDA MPS", is_program({"nvidia-cuda-mps-control", "nvidia-cuda-mps-server"})),
)
