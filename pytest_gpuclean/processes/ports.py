"""Who listens where: all holders of a listening socket, not one of them. And whether a port is free."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import sys
from collections.abc import Iterable

from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.processes.procfs import Procfs

_SOCKET = re.compile(r"socket:\[(\d+)\]")


def ports_of(procfs: Procfs, pids: Iterable[int]) -> dict[int, tuple[int, ...]] | Unavailable:
    """Find the TCP ports on which processes listen, each in its own net namespace.

    Args:
        procfs: where to read.
        pids: the processes.

    Returns:
        The ports of each process that has one, in order.
    """
    if sys.platform != "linux":
        return _ports_by_psutil(pids)
    tables: dict[str | None, dict[int, int]] = {}
    found: dict[int, tuple[int, ...]] = {}
    for pid in pids:
        inodes = sockets_of(procfs, pid)
        if not inodes:
            continue
        namespace = procfs.net_namespace(pid)
        if namespace not in tables:
            tables[namespace] = {inode: port for port, inode in procfs.listeners(pid) or ()}
        ports = sorted({tables[namespace][inode] for inode in inodes & tables[namespace].keys()})
        if ports:
            found[pid] = tuple(ports)
    return found


def holders_of(procfs: Procfs, port: int) -> tuple[int, ...] | Unavailable:
    """Find every process that holds a socket listening on a port: a fork, and SO_REUSEPORT, make several.

    Args:
        procfs: where to read. Other users' processes cannot be seen into, unless by root.
        port: in this process's net namespace.
    """
    if sys.platform != "linux":
        return _holders_by_psutil(port)
    listeners = procfs.listeners(os.getpid())
    if listeners is None:
        return Unavailable("ports", f"{procfs.root}/net/tcp cannot be read")
    inodes = {inode for number, inode in listeners if number == port}
    return tuple(sorted(pid for pid in procfs.pids() if inodes & sockets_of(procfs, pid))) if inodes else ()


def is_free(procfs: Procfs, port: int) -> bool:
    """Tell whether a server could start on a port: nobody listens, and a bind works.

    Connections of an ended server that linger (TIME_WAIT) do not count: servers set SO_REUSEADDR.

    Args:
        procfs: where to read.
        port: in this process's net namespace.
    """
    listeners = procfs.listeners(os.getpid())
    if listeners is not None and any(number == port for number, _ in listeners):
        return False
    return _can_bind(socket.AF_INET, "127.0.0.1", port) and _can_bind(socket.AF_INET6, "::1", port)


def sockets_of(procfs: Procfs, pid: int) -> set[int]:
    """List the inodes of the sockets that a process holds."""
    matches = (_SOCKET.fullmatch(link) for _, link in procfs.descriptors(pid))
    return {int(match[1]) for match in matches if match}


def _can_bind(family: int, address: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if sys.platform != "win32":  # there it would let two servers share the port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        # Whatever else it says (no such protocol here, a port for root alone), it does not say that it is taken.
        return error.errno != errno.EADDRINUSE
    return True


def _ports_by_psutil(pids: Iterable[int]) -> dict[int, tuple[int, ...]] | Unavailable:
    try:
        import psutil
    except ImportError:
        return Unavailable("ports", "psutil is not installed")
    found = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            connections = psutil.Process(pid).net_connections("tcp")
            ports = sorted({c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN})
            if ports:
                found[pid] = tuple(ports)
    return found


def _holders_by_psutil(port: int) -> tuple[int, ...] | Unavailable:
    try:
        import psutil

        connections = psutil.net_connections("tcp")
    except Exception as error:  # macOS lets root alone see all
        return Unavailable("ports", f"{type(error).__name__}: {error}")
    holders = {
        c.pid for c in connections if c.pid and c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN
    }
    return tuple(sorted(holders))
