"""NVIDIA's own command line tool: who uses the GPUs, and how they are reset."""

from __future__ import annotations

import os
import subprocess

_QUERY_SECONDS = 15.0
_RESET_SECONDS = 60.0
_END_SECONDS = 2.0
_MOST_IDLE_MIB = 64
"""A GPU that nobody uses has a few MiB in use, the driver's own; a context alone takes more than this."""
_MOST_NAMED = 3
_LONGEST_TEXT = 200


class NvidiaSmi:
    """Runs `nvidia-smi`, for some seconds at most.

    Args:
        program: its name or path.
        query_seconds: how long a question may take.
        reset_seconds: how long a reset may take.
    """

    def __init__(
        self,
        program: str = "nvidia-smi",
        *,
        query_seconds: float = _QUERY_SECONDS,
        reset_seconds: float = _RESET_SECONDS,
    ) -> None:
        self._program = program
        self._query_seconds = query_seconds
        self._reset_seconds = reset_seconds

    def why_not_idle(self) -> str:
        """Say who uses a GPU, or why that cannot be told; empty where nobody uses any."""
        try:
            users = self._rows("--query-compute-apps=pid,process_name", columns=2)
            if users:
                more = f" and {len(users) - _MOST_NAMED} more" if len(users) > _MOST_NAMED else ""
                return f"in use by {', '.join(map(_user, users[:_MOST_NAMED]))}{more}"
            gpus = self._rows("--query-gpu=index,memory.used,display_active", columns=3)
        except _NoAnswerError as error:
            return str(error)
        if not gpus:
            return f"{self._program} shows no GPU"
        return next((why for gpu in gpus if (why := _why_in_use(*gpu))), "")

    def reset(self) -> str:
        """Reset all GPUs; return why that could not be done, empty where it was."""
        try:
            self._run(["--gpu-reset"], self._reset_seconds)
        except _NoAnswerError as error:
            return str(error)
        return ""

    def _rows(self, query: str, *, columns: int) -> list[list[str]]:
        said = self._run([query, "--format=csv,noheader,nounits"], self._query_seconds)
        lines = [line for line in said.splitlines() if line.strip()]
        # The name of a program may have commas in it: it comes last where there is one.
        rows = [[cell.strip() for cell in line.split(",", columns - 1)] for line in lines]
        if any(len(row) != columns for row in rows):
            raise _NoAnswerError(f"{self._program} answered what cannot be understood: {_text(lines[0])!r}")
        return rows

    def _run(self, arguments: list[str], seconds: float) -> str:
        try:
            process = subprocess.Popen(
                [self._program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as error:
            found = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be run: {error.strerror}"
            raise _NoAnswerError(f"{self._program} {found}") from None
        try:
            said = process.communicate(timeout=seconds)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            raise _NoAnswerError(f"{self._program} gave no answer within {seconds:g} s") from None
        finally:
            _end(process)
        if process.returncode != 0:
            raise _NoAnswerError(f"{self._program} {arguments[0].partition('=')[0]}: {_text(said) or 'it failed'}")
        return said


class _NoAnswerError(Exception):
    """The tool did not do what it was asked for. Its text says why."""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it where it still runs. One that hangs in the driver cannot be ended, and is not waited for."""
    if process.poll() is None:
        process.kill()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return
    if process.stdout is not None:
        process.stdout.close()


def _user(row: list[str]) -> str:
    pid, name = row
    return f"pid {_text(pid)} ({_text(os.path.basename(name)) or 'unknown'})"


def _why_in_use(index: str, used: str, display: str) -> str:
    # A container is shown no processes of others: what they have in use is counted all the same.
    if not used.isdecimal():
        return f"how much of GPU {_text(index)} is in use cannot be told ({_text(used)})"
    if int(used) > _MOST_IDLE_MIB:
        return f"{used} MiB of GPU {_text(index)} are in use by somebody who is not shown"
    return f"GPU {_text(index)} drives a display" if display == "Enabled" else ""


def _text(text: str) -> str:
    """Cut foreign text to one line that is fit to be printed."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")[:_LONGEST_TEXT]
    return "".join(letter if letter.isprintable() else "?" for letter in line)
