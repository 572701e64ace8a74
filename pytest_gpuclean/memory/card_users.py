"""What the driver's lists of processes say about processes of this run, and what they cannot say."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from pytest_gpuclean.memory.cards import Card, CardUse
from pytest_gpuclean.memory.nvml_calls import SOURCE
from pytest_gpuclean.model import Unavailable

_FIRST_NAMESPACE = "pid:[4026531836]"
"""That of the machine itself: the kernel gives it this number in every version."""
_MOST_UNLISTED_BYTES = 256 * 1024 * 1024
"""So much may be in use on a card though nobody uses it: the driver's own, and what shows the screen."""
_SLACK_BYTES = 16 * 1024 * 1024
"""Figures of a card and of its users are not read at one moment, and are rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one process holds on one card."""

    card: Card
    pid: int
    used_bytes: int | None
    """None where that is not known. Never 0 for that."""


def process_exists(pid: int) -> bool:
    """Tell whether a number is that of a process here; True where that cannot be told."""
    if not os.path.isdir("/proc/self"):
        return True
    try:
        os.kill(pid, 0)  # unlike /proc, it tells of other people's too where those are hidden (hidepid)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def is_in_namespace() -> bool:
    """Tell whether this process has process numbers of its own, as in a container: the driver counts by the host's."""
    try:
        return os.readlink("/proc/self/ns/pid") != _FIRST_NAMESPACE
    except OSError:
        return False


def judged_cards(use: Iterable[CardUse]) -> list[CardUse]:
    """Leave out cards that are cut into instances, whose users the instances list too."""
    use = list(use)
    cut = {found.card.parent_uuid for found in use if found.card.is_mig}
    return [found for found in use if not (found.card.is_partitioned and found.card.uuid in cut)]


def why_foreign(
    use: Iterable[CardUse],
    pids: Collection[int] = (),
    *,
    in_namespace: bool | None = None,
    exists: Callable[[int], bool] = process_exists,
) -> str:
    """Say why the numbers that the driver lists are not those that count here; empty where they may be.

    Args:
        use: what the driver says of every card.
        pids: processes of this run, ended or not.
        in_namespace: whether process numbers here may be other ones than the driver's; found out by default.
        exists: tells whether a process number is in use here.
    """
    if not (is_in_namespace() if in_namespace is None else in_namespace):
        return ""
    listed = {user.pid for found in use if not isinstance(found.users, Unavailable) for user in found.users}
    if listed & {*pids, os.getpid()} or all(map(exists, listed)):
        return ""
    return "the driver tells process numbers of another namespace (those of a container's host)"


def holdings(use: Iterable[CardUse], pids: Collection[int]) -> tuple[Holding, ...]:
    """List what processes hold, card by card.

    Args:
        use: what the driver says of every card, in numbers that count here.
        pids: the processes.
    """
    return tuple(
        Holding(card=found.card, pid=user.pid, used_bytes=user.used_bytes)
        for found in judged_cards(use)
        if not isinstance(found.users, Unavailable)
        for user in found.users
        if user.pid in pids
    )


def why_silent(found: CardUse) -> str:
    """Say why a card's list of users cannot be complete; empty where it may be.

    Drivers give an empty list in containers, under WSL and to those who lack permission.
    """
    if isinstance(found.users, Unavailable):
        return found.users.reason
    if not found.users and (found.card.used_bytes or 0) > _MOST_UNLISTED_BYTES:
        return f"the driver lists no process on {found.card.label}, where memory is in use"
    return ""


def bytes_of(use: Iterable[CardUse], pids: Collection[int]) -> dict[int, int | None]:
    """Add up by process what is held on all cards; None where that is not known.

    Args:
        use: what the driver says of every card, in numbers that count here.
        pids: the processes.
    """
    cards = judged_cards(use)
    is_complete = not any(map(why_silent, cards))
    sums: dict[int, int | None] = {}
    for held in holdings(cards, pids):
        before = sums.get(held.pid)
        sums[held.pid] = before if held.used_bytes is None else (before or 0) + held.used_bytes
    return {pid: sums.get(pid, 0 if is_complete else None) for pid in pids}


def missing_bytes(before: CardUse, now: CardUse, gone: Collection[Holding]) -> int:
    """Say how much of what ended processes held on a card is not back; 0 also where that cannot be told.

    Drivers take a process off their list first and free its memory later. What others hold, or take meanwhile, does
    not count: they are on the list.

    Args:
        before: the card while they lived.
        now: the card as it is.
        gone: what they held.
    """
    held = {holding.pid: holding.used_bytes or 0 for holding in gone if holding.card.key == now.card.key}
    if isinstance(now.users, Unavailable) or isinstance(before.users, Unavailable):
        return 0
    still_listed = sum(
        held[user.pid] if user.used_bytes is None else user.used_bytes for user in now.users if user.pid in held
    )
    if still_listed:
        return still_listed
    unlisted_before, unlisted_now = _unlisted(before), _unlisted(now)
    if unlisted_before is None or unlisted_now is None:
        return 0
    expected = sum(held.values())
    fallen = (before.card.used_bytes or 0) - (now.card.used_bytes or 0)
    missing = min(expected - fallen, unlisted_now - unlisted_before)
    return min(expected, missing) if missing > max(_SLACK_BYTES, expected // 20) else 0


def _unlisted(found: CardUse) -> int | None:
    """How much of a card is in use by nobody who is listed; None where some figure is not known."""
    if found.card.used_bytes is None or isinstance(found.users, Unavailable):
        return None
    total = 0
    for user in found.users:
        if user.used_bytes is None:
            return None
        total += user.used_bytes
    return found.card.used_bytes - total


def unaccounted(found: CardUse, framework_bytes: int, pid: int | None = None) -> int | Unavailable:
    """Say how much of a card this process holds that no framework has in its books: contexts, kernels, NCCL.

    Args:
        found: the card and its users.
        framework_bytes: what the frameworks have reserved on it.
        pid: the process; the calling one by default.
    """
    own = os.getpid() if pid is None else pid
    reason = why_foreign([found], [own]) or why_silent(found)
    held = holdings([found], [own])
    if not held and not reason:
        reason = f"the driver does not list this process on {found.card.label}"
    if held and held[0].used_bytes is None:
        reason = f"the driver does not say what a process holds on {found.card.label}"
    if reason or not held or held[0].used_bytes is None:
        return Unavailable(SOURCE, reason)
    return max(0, held[0].used_bytes - framework_bytes)
