"""One test at a time on a device, over all processes of the machine: a locked file a device, freed by the kernel.

The locks are POSIX record locks: they belong to a process, so a child that it has forked does not keep one, and they
end with the process however it ends. Each file has two: byte 0 is the device, byte 1 is shared by those who wait.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pytest_gpuclean.units import format_seconds, shorten

if sys.platform != "win32":
    import fcntl

FOLDER_VARIABLE = "GPUCLEAN_LOCKS"
"""Names another folder: containers that share a card can mount one in common."""
_FOLDERS = ("/dev/shm", "/tmp")  # never TMPDIR: that is another one for each user and job
_FILE_MODE = 0o666
_DEVICE, _WAITERS = 0, 1
_FIRST_PAUSE_SECONDS = 0.001
_LONGEST_PAUSE_SECONDS = 0.05
_GIVE_WAY_SECONDS = 3 * _LONGEST_PAUSE_SECONDS
_FIRST_TOLD_SECONDS = 1.0
_TOLD_EVERY_SECONDS = 30.0
_LONGEST_NOTE = 400
_LONGEST_KEY = 80


@dataclass(frozen=True, slots=True)
class NoLock:
    """The devices cannot be locked, and why."""

    reason: str


class UnfitFileError(Exception):
    """A file that cannot be a lock for all users of the machine."""


@dataclass(frozen=True, slots=True)
class NotFree:
    """Somebody else kept a device for longer than the wait was to be."""

    reason: str


def lock_folder(environ: Mapping[str, str] | None = None) -> str | NoLock:
    """Find the folder in which every user of the machine can make files that no other can replace.

    Args:
        environ: where the user may name another one.
    """
    if sys.platform == "win32":
        return NoLock("there are no such locks on Windows")
    said = (os.environ if environ is None else environ).get(FOLDER_VARIABLE, "")
    if said:
        return said if os.path.isdir(said) else NoLock(f"{FOLDER_VARIABLE}={said!r} is no folder")
    for path in _FOLDERS:
        with contextlib.suppress(OSError):
            found = os.stat(path)
            if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX and os.access(path, os.W_OK):
                return path
    return NoLock(f"neither {' nor '.join(_FOLDERS)} is a folder that all may write to and nobody can take over")


class DeviceLock:
    """The lock of one device.

    Args:
        folder: of the files.
        key: the device's name over the whole machine: a UUID, or `index-2`.
        label: what it is called in a message.
    """

    def __init__(self, folder: str, key: str, label: str) -> None:
        self.label = label
        self._path = os.path.join(folder, f"gpuclean-{re.sub(r'[^A-Za-z0-9-]', '_', key)[:_LONGEST_KEY]}.lock")
        self._file = -1

    def open(self) -> None:
        """Open the file, and make sure that it is one that may be written to.

        Raises:
            UnfitFileError: where it is not.
        """
        try:
            self._file = _open(self._path)
        except OSError as error:
            raise UnfitFileError(f"{self._path} {_why_not_opened(self._path, error)}") from None
        why_not = _why_not_a_lock(os.fstat(self._file))
        if why_not is not None:
            os.close(self._file)
            self._file = -1
            raise UnfitFileError(f"{self._path} {why_not}")

    def attempt(self, note: str) -> bool:
        """Take the lock where it is free.

        Args:
            note: what others are told of who has it.

        Raises:
            UnfitFileError: where another file has taken the place of this one, and is none to lock.
            OSError: where the file system has no locks.
        """
        if not self._lock(fcntl.LOCK_EX, _DEVICE):
            return False
        if not self._is_still_there():  # somebody has deleted the file, and others lock a new one
            self.close()
            self.open()
            return False
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()} {time.time():.0f} {note}"[:_LONGEST_NOTE].encode(errors="replace"), 0)
        return True

    def wait(self) -> None:
        """Let others see that somebody waits."""
        self._lock(fcntl.LOCK_SH, _WAITERS)

    def end_wait(self) -> None:
        """Wait no longer."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _WAITERS)

    def is_awaited(self) -> bool:
        """Whether somebody else waits."""
        if not self._lock(fcntl.LOCK_EX, _WAITERS):
            return True
        self.end_wait()
        return False

    def holder(self) -> str:
        """Say who has it, as far as they have written that down; others' words, so made harmless."""
        found = os.pread(self._file, _LONGEST_NOTE, 0).decode(errors="replace")
        match = re.fullmatch(r"(\d{1,10}) (\d{1,12}) (.+)", found, re.DOTALL | re.ASCII)
        if match is None:
            return "somebody"
        seconds = max(0.0, time.time() - int(match[2]))
        return f"pid {match[1]} for {format_seconds(seconds)} ({shorten(match[3], 160)})"

    def close(self) -> None:
        """Let go of it."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                if self._lock(fcntl.LOCK_EX, _DEVICE):  # ours: nobody else's note is wiped
                    os.ftruncate(self._file, 0)
            os.close(self._file)  # all locks of this process on the file end here
            self._file = -1

    def _lock(self, kind: int, byte: int) -> bool:
        try:
            fcntl.lockf(self._file, kind | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):  # EAGAIN here, EACCES elsewhere
            return False
        return True

    def _is_still_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), os.lstat(self._path))
        except FileNotFoundError:
            return False


class DeviceLocks:
    """The locks of all the devices that a test may use.

    Args:
        folder: of the files.
        devices: key and label of each; the locks are always taken in the order of the keys, so that two processes
            never wait for each other.
        tell: says what a long wait is for, at first after a second, then every 30 seconds.
    """

    def __init__(self, folder: str, devices: Iterable[tuple[str, str]], tell: Callable[[str], None]) -> None:
        self._locks = [DeviceLock(folder, key, label) for key, label in sorted(set(devices))]
        self._tell = tell
        self._had_them = False

    def take(self, note: str, limit_seconds: float) -> float | NotFree | NoLock:
        """Take them all, waiting for as long as is allowed; return how long that took.

        Args:
            note: what others are told of who has them.
            limit_seconds: the bound of the wait.
        """
        begin = time.monotonic()
        taken = False
        try:
            for lock in self._locks:
                lock.open()
                not_free = self._wait_for(lock, note, begin, limit_seconds)
                if not_free is not None:
                    return not_free
            taken = True
        except UnfitFileError as error:
            return NoLock(str(error))
        except OSError as error:
            return NoLock(f"the file system has no locks: {os.strerror(error.errno or 0)}")
        finally:
            self._had_them = taken
            if not taken:
                self.release()
        return time.monotonic() - begin

    def release(self) -> None:
        """Let go of all of them."""
        for lock in reversed(self._locks):
            lock.close()

    def _wait_for(self, lock: DeviceLock, note: str, begin: float, limit_seconds: float) -> NotFree | None:
        if self._had_them and lock.is_awaited():  # else who has just had it would always be the quickest
            lock.wait()
            time.sleep(_GIVE_WAY_SECONDS)
        if lock.attempt(note):
            lock.end_wait()
            return None
        lock.wait()
        pause, tell_at = _FIRST_PAUSE_SECONDS, _FIRST_TOLD_SECONDS
        while not lock.attempt(note):
            waited = time.monotonic() - begin
            if waited >= limit_seconds:
                return NotFree(
                    f"{lock.label} was not free within {format_seconds(limit_seconds)}: {lock.holder()} has it"
                )
            if waited >= tell_at:
                tell_at += _TOLD_EVERY_SECONDS
                self._tell(f"{lock.label}, which {lock.holder()} has")
            time.sleep(min(pause, limit_seconds - waited))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            lock.wait()  # again: the file may be a new one
        lock.end_wait()
        return None


def _open(path: str) -> int:
    # Without O_CREAT where it is there: Linux refuses that for a file of another user (fs.protected_regular).
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(10):
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, flags)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, _FILE_MODE)
            os.fchmod(descriptor, _FILE_MODE)  # other users lock it too, whatever our umask says
            return descriptor
    return os.open(path, flags)


def _why_not_a_lock(found: os.stat_result) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "is no plain file"
    if found.st_nlink > 1:  # a hard link to something else, which we would overwrite
        return "has more than one name"
    return None


def _why_not_opened(path: str, error: OSError) -> str:
    if os.path.islink(path):
        return "is a link"
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if isinstance(error, PermissionError) and found.st_uid != os.geteuid():
            mode = stat.S_IMODE(found.st_mode)
            return f"belongs to uid {found.st_uid}, who keeps it to himself (mode {mode:04o}; 0666 would be right)"
    return f"cannot be opened: {os.strerror(error.errno or 0)}"
