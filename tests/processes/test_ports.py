"""Ports: every holder of a listener, and what free means."""

import os
import socket
import sys

import pytest

from processes.alone import alone
from processes.starting import is_alive, standin
from processes.test_stop import World
from pytest_gpuclean.processes.ports import holders_of, is_free, ports_of
from pytest_gpuclean.processes.procfs import Procfs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="listeners are read from /proc")

PROCFS = Procfs()


def listener(*arguments):
    process = standin("listener.py", *arguments)
    return process, int(process.said[0])


@alone
def test_a_port_that_nobody_holds_is_free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert not is_free(PROCFS, port), "it is bound, and a server could not start there"
    assert is_free(PROCFS, port)
    assert holders_of(PROCFS, port) == ()


@alone
def test_every_holder_of_a_listener_is_found_after_a_fork():
    server, port = listener("0", "fork")
    forked = int(server.said[1])
    assert not is_free(PROCFS, port)
    assert set(holders_of(PROCFS, port)) == {server.pid, forked}
    assert ports_of(PROCFS, [server.pid, forked, os.getpid()]) == {server.pid: (port,), forked: (port,)}


@alone
def test_every_holder_of_a_shared_port_is_found():
    first, port = listener("0", "reuse")
    second, _ = listener(str(port), "reuse")
    assert set(holders_of(PROCFS, port)) == {first.pid, second.pid}


@alone
def test_listeners_on_ipv6_and_on_other_addresses_count():
    for family, address in ((socket.AF_INET6, "::1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET, "127.0.0.2")):
        with socket.socket(family) as server:
            try:
                server.bind((address, 0))
            except OSError:
                continue
            server.listen()
            port = server.getsockname()[1]
            assert not is_free(PROCFS, port)
            assert holders_of(PROCFS, port) == (os.getpid(),)
        assert is_free(PROCFS, port)


@alone
def test_a_connection_that_lingers_does_not_hold_a_port():
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            accepted.close()
    assert is_free(PROCFS, port)


@alone
def test_a_stopped_server_is_told_with_its_port_and_the_port_is_free():
    world = World()
    server, port = listener("0")
    left = world.stop()[server.pid]
    assert (left.ports, left.reason) == ((port,), "")
    assert is_free(PROCFS, port)


@alone
def test_both_holders_of_an_inherited_listener_are_stopped():
    world = World()
    server, port = listener("0", "fork")
    told = world.stop()
    assert {left.ports for left in told.values()} == {(port,)}
    assert len(told) == 2
    assert is_free(PROCFS, port)


@alone
def test_another_holder_of_the_port_is_named_and_goes_on():
    innocent, port = listener("0", "reuse")
    world = World()
    mine, _ = listener(str(port), "reuse")
    told = world.stop()
    assert set(told) == {mine.pid}
    assert told[mine.pid].reason == f"port {port} is still held by python listener.py (pid {innocent.pid})"
    assert is_alive(innocent.pid)
