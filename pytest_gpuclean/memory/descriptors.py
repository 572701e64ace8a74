"""The file descriptors of this process, and what each is, in a few words. Linux; elsewhere nothing is seen."""

from __future__ import annotations

import os
from collections.abc import Collection

from pytest_gpuclean.units import shorten

_FOLDER = "/proc/self/fd"
_LONGEST_PATH = 100
_DELETED = " (deleted)"
_OURS = ("/proc/", "anon_inode:[pidfd]")
"""Opened for a look at this process or at one that was left, which is told of by itself."""
_ANONYMOUS = {"[eventpoll]": "epoll", "[eventfd]": "eventfd", "[timerfd]": "timer", "[signalfd]": "signalfd"}


def open_descriptors() -> frozenset[int]:
    """List the numbers of the descriptors that are open."""
    try:
        numbers = sorted(map(int, os.listdir(_FOLDER)), reverse=True)
    except (OSError, ValueError):
        return frozenset()
    # The one by which the folder was read is among them, and closed by now. It is among the last, mostly, but not
    # always the lowest that was free: a thread that waits in accept() has a number put by.
    for number in numbers:
        try:
            os.get_inheritable(number)
        except OSError:
            return frozenset(numbers) - {number}
    return frozenset(numbers)


def target_of(descriptor: int) -> str:
    """Read what a descriptor stands for: a path, `socket:[123]`; empty where it is closed, or none of the user's."""
    try:
        target = os.readlink(f"{_FOLDER}/{descriptor}")
    except OSError:
        return ""
    return "" if target.startswith(_OURS) else target


def describe(target: str) -> str:
    """Say in a few words what a descriptor stands for, other than a socket."""
    kind, _, rest = target.partition(":")
    if kind == "pipe":
        return "pipe"
    if kind == "anon_inode":
        return _ANONYMOUS.get(rest, shorten(rest.strip("[]"), _LONGEST_PATH))
    if target.startswith("/memfd:"):
        return f"memory file '{shorten(target.removeprefix('/memfd:').removesuffix(_DELETED), _LONGEST_PATH)}'"
    if target.startswith("/dev/"):
        return shorten(target, _LONGEST_PATH)
    note = _DELETED if target.endswith(_DELETED) else ""
    return f"file {shorten(target.removesuffix(_DELETED), _LONGEST_PATH)}{note}"


def describe_sockets(descriptors: Collection[int]) -> dict[int, str]:
    """Say which addresses sockets stand for; `socket` where that is not known.

    Args:
        descriptors: those of sockets.
    """
    words = dict.fromkeys(descriptors, "socket")
    if not descriptors:
        return words
    try:
        import psutil

        # Not by a socket object over the descriptor: with a default timeout it would make the socket non-blocking.
        connections = psutil.Process().net_connections(kind="all")
    except Exception:  # psutil's own errors, and those of a system that hides its tables
        return words
    for connection in connections:
        if connection.fd in words:
            words[connection.fd] = _socket(connection)
    return words


def _socket(connection: object) -> str:
    family = getattr(getattr(connection, "family", None), "name", "")
    here = _address(getattr(connection, "laddr", ""))
    there = _address(getattr(connection, "raddr", ""))
    kind = "Unix socket" if family == "AF_UNIX" else "socket"
    if getattr(getattr(connection, "type", None), "name", "") == "SOCK_DGRAM" and family != "AF_UNIX":
        kind = "UDP socket"
    parts = [kind, here, f"to {there}" if there else "", _state(getattr(connection, "status", ""))]
    return " ".join(filter(None, parts))


def _state(status: object) -> str:
    return {"LISTEN": "(listening)", "CLOSE_WAIT": "(closed by the other side)"}.get(str(status), "")


def _address(address: object) -> str:
    if isinstance(address, str):  # of a Unix socket: a path, or an abstract name
        return shorten(address, _LONGEST_PATH)
    ip, port = getattr(address, "ip", ""), getattr(address, "port", "")
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" if ip else ""
