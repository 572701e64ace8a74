"""The ledgers of other runs: which of those runs are alive, and which are dead."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pytest_gpuclean.processes.identity import NoPin, pin
from pytest_gpuclean.processes.ledger import MOST_BYTES, SUFFIX, UNPUBLISHED
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.run_folder import NoLedger, opened_folder
from pytest_gpuclean.processes.run_record import NewerLedgerError, RunRecord, UnreadableLedgerError

_OLD_SECONDS = 600.0
"""What says nothing is removed when it is older than this; a younger file is perhaps being written."""
# Not O_APPEND: by that the run's own descriptor is known, and this one will be inherited by forks too.
_FLAGS = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class DeadLedger:
    """The ledger of a dead run, which this process holds locked: no other sweep has it at the same time."""

    record: RunRecord
    path: str
    folder: int
    name: str

    def remove(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            os.unlink(self.name, dir_fd=self.folder)


@dataclass(slots=True)
class OtherLedgers:
    """What was found."""

    dead: list[DeadLedger] = field(default_factory=list)
    living: list[RunRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be believed, a line each."""
    own_ids: list[str] = field(default_factory=list)
    """Of the runs in this very process: its own, and those around it where pytest runs in pytest."""
    is_one_unknown: bool = False
    """Whether a run is alive, or may be, whose ledger cannot be read or locked.

    What is its own cannot be told from what a dead one left.
    """
    is_one_refused: bool = False
    """Whether a folder could not be believed: there may be runs alive that are not known."""


@contextlib.contextmanager
def other_ledgers(procfs: Procfs, folders: Iterable[str], *, clear: bool) -> Iterator[OtherLedgers]:
    """Look at the ledgers of the other runs, and hold those of dead ones locked.

    Args:
        procfs: where processes are read.
        folders: where ledgers may lie.
        clear: whether to remove what is broken and old, and what is from before the system was started.
    """
    found = OtherLedgers()
    with contextlib.ExitStack() as held:
        for path in folders:
            if not os.path.lexists(path):
                continue
            folder = held.enter_context(opened_folder(path, create=False))
            if isinstance(folder, NoLedger):
                found.is_one_refused = True
                found.notes.append(f"{folder.reason}: what killed runs left is not looked for there")
                continue
            reader = _Reader(procfs, path, folder, found, held, clear=clear)
            for name in sorted(os.listdir(folder)):
                reader.look_at(name)
        yield found


class _Reader:
    """Looks through one folder."""

    def __init__(
        self,
        procfs: Procfs,
        path: str,
        folder: int,
        found: OtherLedgers,
        held: contextlib.ExitStack,
        *,
        clear: bool,
    ) -> None:
        self._procfs = procfs
        self._path = path
        self._folder = folder
        self._found = found
        self._held = held
        self._clear = clear

    def look_at(self, name: str) -> None:
        """Sort one file in. Whatever it is, it is never followed, never waited for, and never believed unread."""
        pid, dash, _ = name.removeprefix(UNPUBLISHED).partition("-")
        is_ours = name.startswith(UNPUBLISHED) or name.endswith(SUFFIX)
        if not is_ours or not dash or not pid.isdecimal():
            return
        # This process's own, or that of a run around it in the same process: to close it once would unlock it.
        if int(pid) == os.getpid():
            self._found.own_ids.append(name.removeprefix(f"{pid}-").removesuffix(SUFFIX))
            return
        try:
            # Before it is opened: to open a device may do something.
            info = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
            if name.startswith(UNPUBLISHED) and not _is_old(info):
                return  # a run that is just beginning: to lock it now would take its ledger from it
            why_not = _why_not_believed(info)
            if why_not:
                self._tell(name, why_not)
                return
            descriptor = os.open(name, _FLAGS, dir_fd=self._folder)
        except FileNotFoundError:
            return
        except OSError as error:
            self._tell(name, error.strerror or "it cannot be opened")
            return
        is_kept = False
        try:
            is_kept = self._keep_open(name, descriptor)
        except OSError as error:
            self._found.is_one_unknown = True  # its run may be alive
            self._tell(name, error.strerror or "it cannot be locked")
        finally:
            if not is_kept:
                os.close(descriptor)

    def _keep_open(self, name: str, descriptor: int) -> bool:
        """Read a file; tell whether it is a dead run's, and to be held."""
        info = os.fstat(descriptor)
        is_locked = not _lock(descriptor)
        why_not = _why_not_believed(info)
        if info.st_nlink == 0 or (why_not and is_locked):  # another sweep has just removed it
            return False
        record = why_not or self._read(descriptor)
        if isinstance(record, str):
            if is_locked:
                self._found.is_one_unknown = True
                self._tell(name, f"{record}, and its run is alive")
            else:
                self._put_away(name, record, info)
            return False
        if is_locked or self._is_alive(record):
            self._found.living.append(record)
            return False
        if record.claim.boot_id != self._procfs.boot_id():
            self._remove(name)
            return False
        if record.claim.uid != os.geteuid() or not record.claim.holds_here(self._procfs):
            return False  # of another process namespace: whoever comes next in there looks after it
        self._held.callback(os.close, descriptor)
        self._found.dead.append(DeadLedger(record, f"{self._path}/{name}", self._folder, name))
        return True

    def _read(self, descriptor: int) -> RunRecord | str:
        try:
            return RunRecord.from_lines(os.pread(descriptor, 2 * MOST_BYTES, 0))
        except NewerLedgerError as error:
            return f"is of a later pytest-gpuclean ({error})"
        except UnreadableLedgerError as error:
            return f"is broken ({error})"

    def _is_alive(self, record: RunRecord) -> bool:
        """Look for the run's process: a test that closes all descriptors unlocks the ledger of a run that lives."""
        if not record.claim.holds_here(self._procfs):
            return False
        pinned = pin(self._procfs, record.key.pid)
        if pinned is None:
            return False
        if isinstance(pinned, NoPin):
            found = self._procfs.stat(record.key.pid)
            return found is not None and found.start_ticks == record.key.start_ticks and found.state not in "ZX"
        try:
            return pinned.key == record.key and not pinned.is_gone()
        finally:
            pinned.close()

    def _put_away(self, name: str, reason: str, info: os.stat_result) -> None:
        """Remove a file that cannot be believed once it is old; it is this user's, and nobody holds it locked."""
        is_old = _is_old(info)
        if is_old and not reason.startswith("is of a later"):
            self._remove(name)
        if not name.startswith(UNPUBLISHED):
            self._tell(name, f"{reason}{', and was removed' if is_old and self._clear else ''}")

    def _remove(self, name: str) -> None:
        if self._clear:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._folder)

    def _tell(self, name: str, reason: str) -> None:
        self._found.notes.append(f"{self._path}/{name} {reason}: what that run left is not known")


def _is_old(info: os.stat_result) -> bool:
    return time.time() - info.st_mtime > _OLD_SECONDS


def _lock(descriptor: int) -> bool:
    """Lock a file; False where somebody else holds it.

    Raises:
        OSError: on a file system without locks.
    """
    import fcntl

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # EAGAIN here, EACCES elsewhere
        return False
    return True


def _why_not_believed(info: os.stat_result) -> str:
    if not stat.S_ISREG(info.st_mode):
        return "is no regular file"
    if info.st_uid != os.geteuid():
        return f"belongs to uid {info.st_uid}"
    if stat.S_IMODE(info.st_mode) & 0o077:
        return f"is open to others (mode {stat.S_IMODE(info.st_mode):04o})"
    if info.st_nlink > 1:
        return "has a second name"
    return "is too big" if info.st_size > 2 * MOST_BYTES else ""
