"""The shapes of command lines, read as the interpreter itself reads them: no search for a word anywhere in them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Literal

from pytest_gpuclean.processes.families.interface import Command

_PYTHON = re.compile(r"(python|pypy)(\d+(\.\d+)*)?[dtw]?(\.exe)?", re.IGNORECASE)
_TAKES_VALUE = {"W", "X", "Q"}
_LONG_TAKES_VALUE = {"--check-hash-based-pycs", "--help-xoptions"}


@dataclass(frozen=True, slots=True)
class PythonCall:
    """What an interpreter was told to run."""

    kind: Literal["script", "module", "code"]
    target: str
    """The path of the script, the name of the module, or the code."""
    arguments: tuple[str, ...]

    @property
    def script(self) -> str:
        """The file name of the script; empty for a module or code."""
        return os.path.basename(self.target) if self.kind == "script" else ""

    def is_module(self, *names: str) -> bool:
        """Tell whether it is `-m` with one of these names."""
        return self.kind == "module" and self.target in names


def program(command: Command) -> str:
    """Give the file name of the program, as it was called."""
    return os.path.basename(command.argv[0].removeprefix("-")) if command.argv else ""


def python_call(command: Command) -> PythonCall | None:
    """Read the command line of a Python interpreter; None for any other program, and for a bare prompt."""
    if not _PYTHON.fullmatch(program(command)):
        return None
    words = list(command.argv[1:])
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            if word in _LONG_TAKES_VALUE and words:
                words.pop(0)
        elif word.startswith("-") and word != "-":
            found = _read_letters(word[1:], words)
            if found is not None:
                return found
        else:
            return PythonCall("script", word, tuple(words))
    return None


def _read_letters(letters: str, words: list[str]) -> PythonCall | None:
    """Read options that are written together (`-um`, `-Wignore`); take values that stand by themselves."""
    for index, letter in enumerate(letters):
        rest = letters[index + 1 :]
        if letter in "mc":
            target = rest or (words.pop(0) if words else "")
            return PythonCall("module" if letter == "m" else "code", target, tuple(words))
        if letter in _TAKES_VALUE:
            if not rest and words:
                words.pop(0)
            return None
    return None


def is_program(names: Container[str]) -> Callable[[Command], bool]:
    """Make a test for programs of these names, called by themselves and not through an interpreter."""
    return lambda command: program(command) in names


def runs_script(*names: str) -> Callable[[Command], bool]:
    """Make a test for Python scripts of these file names, such as the console scripts of a package."""

    def matches(command: Command) -> bool:
        call = python_call(command)
        return call is not None and call.script in names

    return matches


def runs_module(*names: str) -> Callable[[Command], bool]:
    """Make a test for `python -m NAME`."""

    def matches(command: Command) -> bool:
        call = python_call(command)
        return call is not None and call.is_module(*names)

    return matches


def runs_code(pattern: str) -> Callable[[Command], bool]:
    """Make a test for `python -c CODE` where the code begins with a pattern."""
    compiled = re.compile(pattern)

    def matches(command: Command) -> bool:
        call = python_call(command)
        return call is not None and call.kind == "code" and compiled.match(call.target) is not None

    return matches


def any_of(*tests: Callable[[Command], bool]) -> Callable[[Command], bool]:
    """Make a test that holds where one of several does."""
    return lambda command: any(test(command) for test in tests)
