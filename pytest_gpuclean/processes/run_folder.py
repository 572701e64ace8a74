"""The folder of the runs' ledgers: the user's own, and looked at before it is believed."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

FOLDER_MODE = 0o700
FILE_MODE = 0o600


@dataclass(frozen=True, slots=True)
class NoLedger:
    """The run has no ledger, and why: what it leaves when it is killed is then known by its cookie to nobody."""

    reason: str


def folders_of(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """List where ledgers may lie, the preferred one first.

    All of them are looked through for the ledgers of killed runs: one of them may have run under cron, where there is
    no XDG_RUNTIME_DIR.

    Args:
        environ: where XDG_RUNTIME_DIR is looked up.
    """
    if sys.platform != "linux":
        return ()
    import tempfile

    found = []
    runtime = (os.environ if environ is None else environ).get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and _why_not_own(runtime) is None:
        found.append(os.path.join(runtime, "gpuclean"))
    # Without a link in it: what leads to the folder may be one (/tmp on some systems), the folder itself may not.
    found.append(os.path.join(os.path.realpath(tempfile.gettempdir()), f"gpuclean-{os.geteuid()}"))
    return tuple(found)


@contextlib.contextmanager
def opened_folder(path: str, *, create: bool) -> Iterator[int | NoLedger]:
    """Open a folder, and look whether it can be believed; everything in it is then reached through its descriptor.

    Args:
        path: the folder.
        create: whether to make it where it is missing.
    """
    descriptor = _open_folder(path, create=create)
    try:
        yield descriptor
    finally:
        if isinstance(descriptor, int):
            os.close(descriptor)


def _open_folder(path: str, *, create: bool) -> int | NoLedger:
    try:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, FOLDER_MODE)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if os.path.islink(path):
            return NoLedger(f"{path} is a link")
        return NoLedger(f"{path}: {os.strerror(error.errno or 0)}")
    why_not = _why_not_believed(os.fstat(descriptor))
    if why_not is not None:
        os.close(descriptor)
        return NoLedger(f"{path} {why_not}")
    return descriptor


def _why_not_own(path: str) -> str | None:
    try:
        return _why_not_believed(os.lstat(path))
    except OSError as error:
        return os.strerror(error.errno or 0)


def _why_not_believed(found: os.stat_result) -> str | None:
    if stat.S_ISLNK(found.st_mode):
        return "is a link"
    if not stat.S_ISDIR(found.st_mode):
        return "is no folder"
    if found.st_uid != os.geteuid():
        return f"belongs to uid {found.st_uid}"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return f"is open to others (mode {stat.S_IMODE(found.st_mode):04o}; 0700 would be right)"
    return None
