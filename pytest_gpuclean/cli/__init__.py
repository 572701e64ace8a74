"""The command `gpuclean`. Each subcommand is one file here, and one row of `COMMANDS`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pytest_gpuclean.cli.interface import Command
from pytest_gpuclean.cli.run import RunCommand

COMMANDS: tuple[Command, ...] = (RunCommand(),)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: the arguments without the program's name; by default those of this process.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # What follows `--` is another program's, and argparse, which reads it differently from version to version, is
    # not asked about it.
    end = words.index("--") if "--" in words else len(words)
    options = _parser().parse_args(words[:end])
    options.rest = words[end:]
    command: Command = options.command
    return command.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpuclean",
        description="Give GPU memory back, and stop the processes that a test run left.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        one = commands.add_parser(
            command.name, help=command.summary, usage=command.usage, description=command.summary, allow_abbrev=False
        )
        command.add_options(one)
        one.set_defaults(command=command, parser=one)
    return parser


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
