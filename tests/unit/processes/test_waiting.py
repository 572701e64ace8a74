"""Waiting for ends: by what wakes, and by looking where nothing does."""

import os
import select
import threading
import time

import pytest

from pytest_gpuclean.processes.identity import ProcessKey, Sent
from pytest_gpuclean.processes.waiting import wait_for_all, wait_for_one

FAR_SECONDS = 20.0
"""A bound that no test reaches unless what it is about is broken."""


class TimedPin:
    """A process that has ended after some looks; nothing wakes for it, like a child's pin on Windows."""

    descriptor = None

    def __init__(self, looks):
        self.key = ProcessKey(4, 2)
        self.looks = looks

    def is_same(self):
        return not self.is_gone()

    def is_gone(self):
        self.looks -= 1
        return self.looks <= 0

    def send(self, number):
        return Sent.DENIED

    def reap(self):
        return False

    def close(self):
        pass


class PipePin(TimedPin):
    """A process whose end can be waited for: the reading end of a pipe wakes like a pidfd."""

    def __init__(self):
        super().__init__(0)
        self.descriptor, self.other_end = os.pipe()

    def is_gone(self):
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def end(self):
        os.write(self.other_end, b".")

    def close(self):
        os.close(self.descriptor)
        os.close(self.other_end)


@pytest.fixture
def pipes():
    pins = [PipePin(), PipePin()]
    yield pins
    for pinned in pins:
        pinned.close()


needs_poll = pytest.mark.skipif(not hasattr(select, "poll"), reason="there is no select.poll")


def seconds_of(call):
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


@needs_poll
def test_the_first_end_wakes(pipes):
    threading.Timer(0.05, pipes[1].end).start()
    assert 0.04 < seconds_of(lambda: wait_for_one(pipes, FAR_SECONDS)) < FAR_SECONDS / 2
    assert [pinned.is_gone() for pinned in pipes] == [False, True]


@needs_poll
def test_all_are_waited_for(pipes):
    pipes[0].end()
    threading.Timer(0.05, pipes[1].end).start()
    assert 0.04 < seconds_of(lambda: wait_for_all(pipes, FAR_SECONDS)) < FAR_SECONDS / 2
    assert [pinned.is_gone() for pinned in pipes] == [True, True]


@needs_poll
def test_one_that_nothing_wakes_for_is_looked_at_while_another_lives(pipes):
    slow = TimedPin(looks=3)
    assert seconds_of(lambda: wait_for_one([pipes[0], slow], FAR_SECONDS)) < FAR_SECONDS / 2
    threading.Timer(0.05, pipes[0].end).start()
    assert seconds_of(lambda: wait_for_all([pipes[0], slow], FAR_SECONDS)) < FAR_SECONDS / 2
    assert slow.looks <= 0


@needs_poll
def test_the_bound_holds_where_nothing_ends(pipes):
    assert 0.05 <= seconds_of(lambda: wait_for_all(pipes, 0.06)) < FAR_SECONDS / 2
    assert 0.05 <= seconds_of(lambda: wait_for_all([TimedPin(looks=10**6)], 0.06)) < FAR_SECONDS / 2


@pytest.mark.parametrize("limit_seconds", [0.0, -1.0])
def test_no_time_is_no_wait(limit_seconds):
    pinned = TimedPin(looks=2)
    assert seconds_of(lambda: wait_for_all([pinned], limit_seconds)) < FAR_SECONDS / 2
    assert pinned.looks == 2, "nor a look"


def test_a_system_without_poll_is_waited_on_by_looking(monkeypatch):
    monkeypatch.delattr(select, "poll", raising=False)  # Windows
    pinned = TimedPin(looks=3)
    assert 0.02 < seconds_of(lambda: wait_for_all([pinned], FAR_SECONDS)) < FAR_SECONDS / 2
    assert pinned.looks == 0


def test_nobody_to_wait_for_is_no_wait():
    assert seconds_of(lambda: wait_for_all([], FAR_SECONDS)) < FAR_SECONDS / 2
