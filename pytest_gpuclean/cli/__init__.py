"""The command `gpuclean`. Each subcommand is one file here, and one row of `COMMANDS`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from pytest_gpuclean.cli.clean import CleanCommand
from pytest_gpuclean.cli.interface import Command
from pytest_gpuclean.cli.ps import PsCommand
from pytest_gpuclean.cli.report import ReportCommand
from pytest_gpuclean.cli.run import RunCommand
from pytest_gpuclean.cli.status import StatusCommand

COMMANDS: tuple[Command, ...] = (StatusCommand(), PsCommand(), CleanCommand(), RunCommand(), ReportCommand())
_INTERRUPTED, _PIPE_CLOSED = 130, 141
"""As a shell says that a command was ended by SIGINT or SIGPIPE."""


def main(argv: Sequence[str] | None = None, commands: Sequence[Command] = COMMANDS) -> int:
    """Run a subcommand.

    Args:
        argv: the arguments without the program's name; by default those of this process.
        commands: those that there are.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # What follows `--` is another program's, and argparse, which reads it differently from version to version, is
    # not asked about it.
    end = words.index("--") if "--" in words else len(words)
    _write_anything()
    options = parser(commands).parse_args(words[:end])
    options.rest = words[end:]
    command: Command = options.command
    try:
        status = command.run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # `gpuclean status | head -1`
        # Python would try once more at its end, and say that it has failed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED


def _write_anything() -> None:
    """Let letters that a terminal or a pipe does not know be written by their numbers: command lines have them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def parser(commands: Sequence[Command] = COMMANDS) -> argparse.ArgumentParser:
    """Make what reads the command line. `shtab pytest_gpuclean.cli.parser` makes completions for a shell of it.

    Args:
        commands: those that there are.
    """
    whole = argparse.ArgumentParser(
        prog="gpuclean",
        description="Give GPU memory back, and stop the processes that a test run left.",
        allow_abbrev=False,
    )
    whole.add_argument("--version", action=_Version, nargs=0, help="say which version this is")
    adding = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in commands:
        one = adding.add_parser(
            command.name, help=command.summary, usage=command.usage, description=command.summary, allow_abbrev=False
        )
        command.add_options(one)
        one.set_defaults(command=command, parser=one)
    return whole


class _Version(argparse.Action):
    """Look the version up only where it is asked for: that reads the files of the installed package."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("pytest-gpuclean")
        except PackageNotFoundError:
            number = "(not installed)"
        print(f"gpuclean {number}")
        parser.exit()
