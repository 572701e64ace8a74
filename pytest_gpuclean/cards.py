"""GPU memory of the processes that a test left: read before they end, waited for after, and whose it is meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from pytest_gpuclean.cleanup.settle import wait_until
from pytest_gpuclean.memory.card_users import (
    Holding,
    bytes_of,
    holdings,
    judged_cards,
    missing_bytes,
    unaccounted,
    why_foreign,
    why_silent,
)
from pytest_gpuclean.memory.cards import CardUse
from pytest_gpuclean.memory.nvml import Nvml
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.memory import Snapshot
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.command import label, read_command
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.units import format_seconds, format_size

_LONGEST_PAUSE_SECONDS = 0.01
"""The wait ends within 20 ms of the moment that the memory is back."""
_MOST_NAMED = 3


class CardWatch:
    """Looks at the cards where processes of the run come to their end. Without such, it asks nothing.

    Args:
        nvml: the driver's view.
        procfs: where processes are read.
        settle_seconds: the upper bound of a wait.
        on_wait: told what a long wait is for.
        on_gap: told why memory of processes could not be read, where there is a driver.
    """

    def __init__(
        self,
        nvml: Nvml,
        procfs: Procfs,
        *,
        settle_seconds: float = 10.0,
        on_wait: Callable[[str], None] = lambda _: None,
        on_gap: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._nvml = nvml
        self._procfs = procfs
        self._settle_seconds = settle_seconds
        self._on_wait = on_wait
        self._on_gap = on_gap
        self._before: tuple[CardUse, ...] = ()
        self._held: tuple[Holding, ...] = ()

    def bytes_of(self, pids: Collection[int]) -> Mapping[int, int | None]:
        """Read what processes hold that are about to end.

        Args:
            pids: the processes.

        Returns:
            Bytes by process, None where that is not known.
        """
        self._before, self._held = (), ()
        use = self._nvml.use()
        if isinstance(use, Unavailable):
            if not self._nvml.is_absent:
                self._on_gap(use.reason)
            return {}
        reason = why_foreign(use, pids)
        for gap in filter(None, [reason, *map(why_silent, judged_cards(use))]):
            self._on_gap(gap)
        if reason:
            return {}
        self._before, self._held = use, holdings(use, pids)
        return bytes_of(use, pids)

    def leaks(self, test: str, threshold_bytes: int, left: Iterable[LeftProcess]) -> Iterator[Leak]:
        """Judge what processes held that a test has left; one leak a device and whoever started them.

        Args:
            test: the test.
            threshold_bytes: the largest amount that passes.
            left: the processes that count, of those that were last asked about.
        """
        by_pid = {process.pid: process for process in left}
        together: dict[tuple[str, str], dict[int, int]] = {}
        for held in self._held:
            process = by_pid.get(held.pid)
            if process is not None and held.used_bytes:
                share = together.setdefault((held.card.label, process.started_by), {})
                share[held.pid] = share.get(held.pid, 0) + held.used_bytes
        for (device, started_by), share in together.items():
            total = sum(share.values())
            if total > threshold_bytes:
                starter = f", started by {started_by}" if started_by not in ("", test) else ""
                yield Leak(
                    kind="test",
                    name=test,
                    device=device,
                    source=self._nvml.source,
                    leaked_bytes=total,
                    threshold_bytes=threshold_bytes,
                    children=_named([by_pid[pid] for pid in share]) + starter,
                )

    def settle(self, ended: Collection[int], limit_seconds: float | None = None) -> list[str]:
        """Wait until what processes held is back.

        Args:
            ended: the processes that have ended, of those that were last asked about.
            limit_seconds: the upper bound, where it is another one this time.

        Returns:
            What has not come back in time and who uses the card, in a sentence; none where all is back.
        """
        gone = [held for held in self._held if held.pid in ended and held.used_bytes]
        before = {found.card.key: found for found in self._before}
        cards = {held.card.key: held.card for held in gone}
        if not cards:
            return []
        latest: tuple[CardUse, ...] = ()

        def is_back() -> bool:
            nonlocal latest
            now = self._nvml.use_of(cards.values())
            if isinstance(now, Unavailable):
                return True  # there is nobody to ask any more
            latest = now
            return not any(missing_bytes(before[found.card.key], found, gone) for found in now)

        begin = time.monotonic()
        if wait_until(
            is_back,
            self._settle_seconds if limit_seconds is None else limit_seconds,
            on_long_wait=lambda: self._on_wait("the GPU memory of processes that have ended"),
            longest_pause_seconds=_LONGEST_PAUSE_SECONDS,
        ):
            return []
        parts = [
            f"{format_size(missing)} on {found.card.label}, {self._held_by(found)}"
            for found in latest
            if (missing := missing_bytes(before[found.card.key], found, gone))
        ]
        waited = format_seconds(time.monotonic() - begin)
        return [f"GPU memory of processes that have ended is not back after {waited}: {'; '.join(parts)}"]

    def _held_by(self, found: CardUse) -> str:
        who = who_holds(found, self._procfs)
        return (
            f"where {_shortened(who)} {'uses' if len(who) == 1 else 'use'} it" if who else "where no process is listed"
        )


def unaccounted_lines(nvml: Nvml, snapshot: Snapshot) -> list[str]:
    """Say of each card that frameworks use how much this process holds that is in none of their books.

    Args:
        nvml: the driver's view; not asked where no framework uses a card.
        snapshot: what the frameworks say.
    """
    reserved: dict[str, int] = {}
    for reading in snapshot.readings:
        if reading.device.startswith("cuda:"):
            reserved[reading.device] = reserved.get(reading.device, 0) + reading.reserved_bytes
    use = nvml.use() if reserved else ()
    if isinstance(use, Unavailable):
        return []
    lines = []
    for found in use:
        size = unaccounted(found, reserved[found.card.device]) if found.card.device in reserved else 0
        if isinstance(size, Unavailable):
            lines.append(f"{found.card.device}: beyond the frameworks' books: not measured, {size.reason}")
        elif size:
            what = "its context, kernels and libraries"
            lines.append(f"{found.card.device}: {format_size(size)} of this process in no framework's books ({what})")
    return lines


def who_holds(found: CardUse, procfs: Procfs) -> tuple[str, ...]:
    """Say who holds memory of a card: `pid 4711 python train.py (user bob): 20.1 GiB`, the largest first.

    Args:
        found: the card and its users.
        procfs: where processes are read.
    """
    if isinstance(found.users, Unavailable):
        return ()
    is_foreign = bool(why_foreign([found]))
    users = sorted(found.users, key=lambda user: -(user.used_bytes or 0))
    return tuple(f"{_who(user.pid, procfs, is_foreign=is_foreign)}: {_size(user.used_bytes)}" for user in users)


def _who(pid: int, procfs: Procfs, *, is_foreign: bool) -> str:
    if is_foreign:
        return f"pid {pid} of another namespace"
    if procfs.stat(pid) is None:
        return f"pid {pid}"
    uids = procfs.uids(pid)
    user = f" (user {_user_name(uids.real)})" if uids else ""
    return f"pid {pid} {label(read_command(procfs, pid, os.getpid()))}{user}"


def _user_name(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):  # Windows; a container that does not know its host's users
        return str(uid)


def _size(used_bytes: int | None) -> str:
    return "the driver does not say how much" if used_bytes is None else format_size(used_bytes)


def _named(processes: Sequence[LeftProcess]) -> str:
    names = [f"pid {process.pid}, {process.name}" for process in processes]
    count = "a child process" if len(names) == 1 else f"{len(names)} child processes"
    return f"{count} ({_shortened(names, '; ')})"


def _shortened(names: Sequence[str], joint: str = ", ") -> str:
    more = [f"and {len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
    return joint.join([*names[:_MOST_NAMED], *more])
