"""Waiting for what JAX still computes, once and no longer than the bound."""

import threading

import pytest

from pytest_gpuclean.dispatched import Dispatched
from unit.fakes import fake_module, put


class Array:
    def __init__(self):
        self.is_computed = threading.Event()
        self.asked = 0
        self.newer = []

    def is_deleted(self):
        return False

    def is_ready(self):
        self.asked += 1
        return self.is_computed.is_set()


@pytest.fixture
def array(monkeypatch):
    array = Array()

    class Client:
        platform = "cpu"

        def live_arrays(self):
            return [*array.newer, array]

    bridge = fake_module(
        "jax._src.xla_bridge", backends_are_initialized=lambda: True, backends=lambda: {"cpu": Client()}
    )
    put(monkeypatch, fake_module("jax"), bridge)
    return array


def test_a_wait_ends_when_it_is_computed_and_tells_what_it_is_for(array):
    told = []

    def tell(what):  # after a second
        told.append(what)
        array.is_computed.set()

    dispatched = Dispatched(60.0, tell)
    assert dispatched.is_awaited()
    dispatched.wait()
    assert told == ["what JAX still computes"]
    assert not dispatched.is_awaited()


def test_after_a_wait_that_came_to_its_bound_there_is_none_until_all_is_computed(array):
    dispatched = Dispatched(0.02, lambda what: None)
    dispatched.wait()
    asked = array.asked
    dispatched.wait()
    assert array.asked == asked + 1
    array.newer = [Array() for _ in range(100)]
    for newer in array.newer:
        newer.is_computed.set()
    assert not dispatched.is_awaited()
    array.newer[0].is_computed.clear()
    assert not dispatched.is_awaited()
    array.newer[0].is_computed.set()
    array.is_computed.set()
    assert not dispatched.is_awaited()
    array.newer[0].is_computed.clear()
    assert dispatched.is_awaited()
