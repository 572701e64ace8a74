"""Files that are written whole or not at all: beside the old one, and renamed; never through a link."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable
from typing import TextIO

from pytest_gpuclean.errors import InputError


def check_target(path: str, source: str) -> None:
    """Make sure that a file can be written, before the time that it takes to have something to write.

    Args:
        path: the file.
        source: what names it, for the error.

    Raises:
        InputError: where it is a folder, a link or another thing that is no file, or its folder takes no file.
    """
    reason = _why_no_target(path)
    if reason is not None:
        raise InputError(f"{source}: {path!r} {reason}")
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        descriptor, beside = _make_beside(path)
        os.close(descriptor)
        os.unlink(beside)
    except OSError as error:
        raise InputError(f"{source}: {path!r} cannot be written: {error.strerror}") from None


def write_file(path: str, write: Callable[[TextIO], None]) -> None:
    """Write a text file; the old one stays where that fails.

    Args:
        path: the file.
        write: writes the text.

    Raises:
        OSError: where it cannot be written.
    """
    reason = _why_no_target(path)  # it may have become one since it was looked at
    if reason is not None:
        raise OSError(f"it {reason}")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    descriptor, beside = _make_beside(path)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def read_file(path: str, most_bytes: int, source: str) -> str:
    """Read a text file that is not larger than it should be.

    Args:
        path: the file.
        most_bytes: how large it may be.
        source: what names it, for the error.

    Raises:
        InputError: where it is missing, larger, no file or no text.
    """
    try:
        # A pipe would keep this waiting for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{source}: {path!r} is no file")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(most_bytes + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"{source}: {path!r} cannot be read: {error.strerror}") from None
    if len(data) > most_bytes:
        raise InputError(f"{source}: {path!r} is larger than {most_bytes // 2**20} MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: {path!r} is no UTF-8 text: {error.reason} at byte {error.start}") from None


def _why_no_target(path: str) -> str | None:
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # most often it is not there yet; what else is wrong shows when the folder is tried
        return None
    if stat.S_ISDIR(mode):
        return "is a folder; name a file in it"
    if stat.S_ISLNK(mode):
        return f"is a link; name the file that it leads to: {os.path.realpath(path)!r}"
    return None if stat.S_ISREG(mode) else "is no ordinary file"


def _make_beside(path: str) -> tuple[int, str]:
    """Make a file next to another one: a name that nobody can foresee, made by nobody else, and no link."""
    beside = os.path.join(os.path.dirname(path), f".gpuclean-{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.open(beside, flags, 0o666), beside
