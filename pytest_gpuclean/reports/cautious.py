"""What files say of a process: its program and the names of its options, never their values, which may be secret."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator

from pytest_gpuclean.model.processes import LeftProcess

_HIDDEN = "…"
_PROGRAM = re.compile(r"\[?[\w./+-]{1,120}\]?")
_OPTION = re.compile(r"--?[A-Za-z][A-Za-z0-9_.-]{0,40}")
_NUMBER = re.compile(r"\d{1,5}")
_MODULE = re.compile(r"[A-Za-z_][\w.]*")
_SCRIPT = re.compile(r"[^\s=:@?&]*\.(py|sh|js|jar|rb|launch)")


def without_values(left: LeftProcess) -> LeftProcess:
    """Hide the values of a process's arguments. What is not known to be harmless is hidden.

    Args:
        left: the process, as it is told on the terminal.
    """
    return dataclasses.replace(left, command=" ".join(_words(left.command)), name=_name(left.name))


def _name(name: str) -> str:
    # The label of `python -c CODE` holds the code.
    return f"python -c {_HIDDEN}" if name.startswith("python -c") else name


def _words(command: str) -> Iterator[str]:
    words = command.split(" ")
    yield os.path.basename(words[0]) if _PROGRAM.fullmatch(words[0]) or not words[0] else _HIDDEN
    before, is_open, last = "", True, ""
    for word in words[1:]:
        shown, is_open = _shown(word, before, is_open)
        before = word
        if shown != _HIDDEN or last != _HIDDEN:  # however many there are
            yield shown
        last = shown


def _shown(word: str, before: str, is_open: bool) -> tuple[str, bool]:
    """Say what of a word is told, and whether the next word may still be the program that is run."""
    if word.startswith("-"):
        name, equals, value = word.partition("=")
        if not _OPTION.fullmatch(name):
            return _HIDDEN, is_open
        if not name.startswith("--") and len(name) > 2:  # -psecret
            return f"{name[:2]}{_HIDDEN}", is_open
        is_open = is_open and name != "-c"  # what follows is code
        harmless = value if _NUMBER.fullmatch(value) else _HIDDEN
        return f"{name}={harmless}" if equals else name, is_open
    if before == "-m" and is_open and _MODULE.fullmatch(word):
        return word, False
    if is_open and _SCRIPT.fullmatch(word):
        return os.path.basename(word), False
    return (word if _NUMBER.fullmatch(word) else _HIDDEN), False
