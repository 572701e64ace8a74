"""How the command writes: headings and lines that fit on a terminal, plain text in a pipe, or JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any, TextIO

_BOLD, _DIM, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_LEAST_COLUMNS = 60


class Console:
    """Writes to a stream.

    Args:
        stream: stdout by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._is_terminal = bool(getattr(self._stream, "isatty", bool)())
        wants_none = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._has_styles = self._is_terminal and not wants_none
        self._columns = max(_LEAST_COLUMNS, shutil.get_terminal_size().columns) if self._is_terminal else 0

    def heading(self, text: str) -> None:
        """Write a heading."""
        self._write(text, _BOLD)

    def line(self, text: str, indent: int = 1) -> None:
        """Write a line.

        Args:
            text: what it says.
            indent: in steps of two blanks.
        """
        self._write("  " * indent + text)

    def detail(self, text: str, indent: int = 2) -> None:
        """Write a line that matters less: it is cut off where the terminal ends.

        Args:
            text: what it says.
            indent: in steps of two blanks.
        """
        text = "  " * indent + text
        if self._columns and len(text) > self._columns:
            text = text[: self._columns - 3] + "..."
        self._write(text, _DIM)

    def _write(self, text: str, style: str = "") -> None:
        print(f"{style}{text}{_RESET}" if style and self._has_styles else text, file=self._stream, flush=True)


def format_age(seconds: float) -> str:
    """Write how long ago something was: `42 s`, `5 min`, `3 h`, `2 days`.

    Args:
        seconds: since then.
    """
    for unit_seconds, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_seconds:
            return f"{seconds // unit_seconds:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def write_json(data: dict[str, Any]) -> None:
    """Write one JSON document to stdout.

    Args:
        data: what it says; a version is put in front.
    """
    print(json.dumps({"version": 1, **data}, indent=2))
