"""The run's ledger: a file that says what the run can prove its processes by, for whoever comes after it was killed.

It is locked as long as the run lives. The lock is one of fcntl: a fork does not inherit it. It goes when *any*
descriptor of the file in this process is closed, so nobody in this process may open it a second time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Iterable, MutableMapping
from dataclasses import replace

from pytest_gpuclean.processes.command import command_line, read_command
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.ownership import Claim, Run
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.run_folder import FILE_MODE, NoLedger, folders_of, opened_folder
from pytest_gpuclean.processes.run_record import RunRecord, Seen, kept_lines

MOST_BYTES = 1024 * 1024
"""A ledger that would grow beyond this is written anew with what lives."""
SUFFIX = ".jsonl"
UNPUBLISHED = ".new-"
# O_APPEND tells the run's own descriptor from one of somebody who looks at the file.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


class Ledger:
    """The ledger of the run that this process is. Trouble with it never reaches the run: see `problem`."""

    def __init__(self, folder: str, name: str, descriptor: int) -> None:
        self.folder = folder
        self.name = name
        """Of the file; the process that has it open is named in it, so that the same process leaves it closed."""
        self.descriptor = descriptor
        self.problem = ""
        """Why nothing more is written to it; empty while all is well."""
        found = os.fstat(descriptor)
        self._file = (found.st_dev, found.st_ino)
        self._pid = os.getpid()
        self._head_bytes = 0
        self._size_bytes = 0
        self._written: dict[ProcessKey, Seen] = {}
        self._kept: set[ProcessKey] = set()

    def begin(self, claim: Claim, procfs: Procfs) -> NoLedger | None:
        """Write the first line and give the file the name by which others find it.

        Args:
            claim: the run's.
            procfs: where this process is read.

        Returns:
            None where it was done, else the reason why not; the file is gone then.
        """
        stat = procfs.stat(self._pid)
        if not claim.boot_id or not claim.pid_namespace:
            self.problem = f"{procfs.root} hides which start of the system this is"
            self.close()
            return NoLedger(self.problem)
        record = RunRecord(
            claim=claim,
            key=ProcessKey(self._pid, stat.start_ticks if stat else 0),
            command=command_line(read_command(procfs, self._pid, 0)),
            started_at=time.time(),
            terminal=procfs.terminal(self._pid) or 0,
            cgroup=procfs.cgroup(self._pid) or "",
        )
        self._append(record.to_line())
        self._head_bytes = self._size_bytes
        if not self.problem:
            self._publish(f"{self._pid}-{record.id}{SUFFIX}")
        if not self.problem:
            return None
        self.close()
        return NoLedger(self.problem)

    def write(self, living: Iterable[Seen]) -> None:
        """Write down the processes that the run has now; those of before that are not among them are forgotten.

        Args:
            living: all of them. Only what is new costs anything.
        """
        if not self._is_usable():
            return
        now = {seen.key: seen for seen in living if seen.key not in self._kept}
        news = b"".join(seen.to_line() for key, seen in now.items() if key not in self._written)
        self._written = now
        if self._size_bytes + len(news) > MOST_BYTES:
            self._write_anew()
        elif news:
            self._append(news)

    def keep(self, keys: Iterable[ProcessKey]) -> None:
        """Write down what the user has disowned: it is left alone, with what is below it, after a kill too."""
        news = set(keys) - self._kept
        if news and self._is_usable():
            self._kept |= news
            self._append(kept_lines(news))

    def close(self) -> None:
        """End it in good order: the file goes. A fork of the run leaves it."""
        if os.getpid() != self._pid:
            return
        with opened_folder(self.folder, create=False) as folder, contextlib.suppress(OSError):
            if isinstance(folder, int):
                found = os.stat(self.name, dir_fd=folder, follow_symlinks=False)
                if (found.st_dev, found.st_ino) == self._file:
                    os.unlink(self.name, dir_fd=folder)
        if self._is_mine():
            os.close(self.descriptor)
        self.problem = self.problem or "it was closed"

    def _publish(self, name: str) -> None:
        with opened_folder(self.folder, create=False) as folder:
            if isinstance(folder, NoLedger):
                self.problem = folder.reason
                return
            try:
                os.rename(self.name, name, src_dir_fd=folder, dst_dir_fd=folder)
                self.name = name
            except OSError as error:
                self.problem = f"{self.folder}: {error.strerror}"

    def _write_anew(self) -> None:
        """Leave out what has ended. Not by another file: the lock, and the proof of a fork, are this one's."""
        lines = [kept_lines(self._kept)]
        room_bytes = MOST_BYTES // 2 - self._head_bytes - len(lines[0])
        for seen in reversed(self._written.values()):
            line = seen.to_line()
            room_bytes -= len(line)
            if room_bytes < 0:  # they bear the cookie, most of them
                break
            lines.append(line)
        try:
            os.ftruncate(self.descriptor, self._head_bytes)
        except OSError as error:
            self.problem = f"{self.folder}: {error.strerror}"
            return
        self._size_bytes = self._head_bytes
        self._append(b"".join(lines))

    def _append(self, lines: bytes) -> None:
        try:
            written = os.write(self.descriptor, lines)
            if written < len(lines):
                os.ftruncate(self.descriptor, self._size_bytes)
                self.problem = f"{self.folder}: there is no more room"
                return
        except OSError as error:
            self.problem = f"{self.folder}: {error.strerror}"
            return
        self._size_bytes += written

    def _is_usable(self) -> bool:
        if self.problem or os.getpid() != self._pid:
            return False
        if not self._is_mine():
            self.problem = "a test has closed the descriptor of the ledger"
        return not self.problem

    def _is_mine(self) -> bool:
        """Tell whether the descriptor still is the ledger's: whoever closes all of them frees its number too."""
        try:
            found = os.fstat(self.descriptor)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._file


def open_ledger(folders: Iterable[str] | None = None) -> Ledger | NoLedger:
    """Make a ledger, locked, which nobody finds until it has begun.

    Args:
        folders: where it may lie, the first that can be used; by default the user's own.
    """
    if sys.platform != "linux":
        return NoLedger(f"{sys.platform} has no /proc to prove processes by")
    reasons = []
    for path in folders_of() if folders is None else folders:
        with opened_folder(path, create=True) as folder:
            made = folder if isinstance(folder, NoLedger) else _make(path, folder)
        if isinstance(made, Ledger):
            return made
        reasons.append(made.reason)
    return NoLedger("; ".join(reasons) or "there is no folder for it")


def begin_run(
    *,
    subreaper: bool = True,
    procfs: Procfs | None = None,
    folders: Iterable[str] | None = None,
    environ: MutableMapping[str, str] | None = None,
) -> tuple[Run, Ledger | NoLedger]:
    """Begin a run with its ledger; at its end, `ledger.close()` and `run.end()`.

    Args:
        subreaper: whether to adopt orphans where the system can.
        procfs: where processes are read.
        folders: where the ledger may lie; by default the user's own.
        environ: where the cookie goes for children to inherit.
    """
    ledger = open_ledger(folders)
    descriptor = ledger.descriptor if isinstance(ledger, Ledger) else None
    run = Run(procfs, ledger_fd=descriptor, subreaper=subreaper, environ=environ)
    refusal = ledger.begin(run.claim, run.procfs) if isinstance(ledger, Ledger) else None
    if refusal is not None:
        run.claim = replace(run.claim, ledger=None)  # another file may come to stand in its place
    return run, refusal or ledger


def _make(path: str, folder: int) -> Ledger | NoLedger:
    import fcntl

    name = f"{UNPUBLISHED}{os.getpid()}-{secrets.token_hex(8)}"
    try:
        descriptor = os.open(name, _FLAGS, FILE_MODE, dir_fd=folder)
    except OSError as error:
        return NoLedger(f"{path}: {error.strerror}")
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # a file system without locks
        os.unlink(name, dir_fd=folder)
        os.close(descriptor)
        return NoLedger(f"{path}: {error.strerror}: it cannot be locked")
    return Ledger(path, name, descriptor)
