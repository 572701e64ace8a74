"""Waiting: no fixed sleep, and no longer than there is a reason to."""

import threading
import time
import weakref

import pytest

from pytest_gpuclean.cleanup.settle import NewThreads, Patience, ThreadWatch, wait_until

NEVER = 3600.0


def looks(*answers):
    """Answer one after the other; a further look fails the test."""
    following = iter(answers)
    return lambda: next(following)


def test_memory_that_is_back_at_once_is_not_waited_for():
    begin = time.perf_counter()
    assert wait_until(looks(True), NEVER)
    assert time.perf_counter() - begin < 1


def test_it_looks_again_until_the_memory_is_back():
    assert wait_until(looks(False, False, False, True), NEVER)


def test_without_a_limit_it_looks_once():
    assert not wait_until(looks(False), 0)


def test_the_limit_bounds_the_wait():
    begin = time.perf_counter()
    assert not wait_until(lambda: False, 0.02)
    assert 0.02 <= time.perf_counter() - begin < 5


def test_it_gives_up_once_there_is_nothing_left_to_wait_for():
    assert not wait_until(looks(False, False, False), NEVER, may_go_on=looks(True, True, False))


def test_it_looks_once_more_after_the_last_reason_to_wait_has_gone():
    """What a thread frees as its last act would else be missed."""
    assert wait_until(looks(False, True), NEVER, may_go_on=looks(True, False))


def test_a_short_wait_is_not_told():
    told = []
    wait_until(looks(False, False, True), NEVER, on_long_wait=lambda: told.append(1))
    assert told == []


def test_a_long_wait_is_told_once():
    told = []
    wait_until(lambda: False, 1.3, on_long_wait=lambda: told.append(1))
    assert told == [1]


def test_an_error_of_a_look_ends_the_wait():
    def look():
        raise OSError("device lost")

    with pytest.raises(OSError, match="device lost"):
        wait_until(look, NEVER)


def test_patience_wears_off_where_waiting_does_not_help():
    patience = Patience(2.0, 0.5)
    waits = []
    for _ in range(4):
        waits.append(patience.seconds)
        patience.learn(helped=False)
    assert waits == [2.0, 1.0, 0.5, 0.5]


def test_patience_comes_back_where_waiting_helped():
    patience = Patience(2.0, 0.5)
    patience.learn(helped=False)
    patience.learn(helped=True)
    assert patience.seconds == 2.0


def test_a_thread_that_was_started_since_is_found_as_long_as_it_lives():
    known = ThreadWatch().known()
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait, name="loader")
    assert NewThreads(known).names == []
    thread.start()
    new = NewThreads(known)
    assert (new.names, new.are_alive()) == (["loader"], True)
    may_end.set()
    thread.join()
    assert (new.are_alive(), NewThreads(known).names) == (False, [])


def test_a_thread_that_is_waited_for_is_not_kept():
    known = ThreadWatch().known()
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait)
    thread.start()
    new = NewThreads(known)
    may_end.set()
    thread.join()
    ended = weakref.ref(thread)
    del thread
    assert ended() is None
    assert not new.are_alive()


def test_the_thread_that_asks_is_never_waited_for():
    found = []
    thread = threading.Thread(target=lambda: found.append(NewThreads(frozenset(known)).names))
    known = ThreadWatch().known()
    thread.start()
    thread.join()
    assert found == [[]]


def test_the_watch_takes_in_threads_that_have_come_and_gone():
    watch = ThreadWatch()
    before = watch.known()
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait)
    thread.start()
    assert watch.known() == before | {(thread.ident, thread.name)}
    may_end.set()
    thread.join()
    assert watch.known() == before
