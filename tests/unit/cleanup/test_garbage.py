"""Garbage: young generations first, the old one only where it is worth it."""

import gc
import weakref

import pytest

from pytest_gpuclean.cleanup.garbage import GarbageCleaner, collect_all, collect_young
from pytest_gpuclean.cleanup.interface import Occasion, Skip


class Node:
    pass


def cycle():
    node = Node()
    node.itself = node
    return weakref.ref(node)


def old_cycle():
    node = Node()
    node.itself = node
    for generation in range(3):
        gc.collect(generation)
    return weakref.ref(node)


@pytest.fixture(autouse=True)
def _only_when_asked():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_young_garbage_goes_without_a_full_collection():
    old = old_cycle()
    young = cycle()
    assert collect_young() > 0
    assert young() is None
    assert old() is not None
    collect_all()
    assert old() is None


def test_it_collects_until_a_pass_frees_nothing():
    """A finalizer may leave garbage that only the next pass can free."""
    left = []

    class Last:
        def __del__(self):
            left.append(cycle())

    node = Node()
    node.itself, node.last = node, Last()
    del node
    collect_all()
    assert left[0]() is None


def test_young_garbage_takes_one_pass_over_everything():
    gc.collect()
    young = cycle()
    before = gc.get_stats()[2]["collections"]
    collect_all()
    assert young() is None
    assert gc.get_stats()[2]["collections"] == before + 1


def test_it_ends_also_where_finalizers_make_new_garbage_for_ever():
    class Phoenix:
        def __del__(self):
            if self.burns:
                rise()

    def rise():
        phoenix = Phoenix()
        phoenix.itself, phoenix.burns = phoenix, next(fires)

    fires = iter([True] * 1000)
    rise()
    collect_young()
    assert next(fires, None) is not None
    fires = iter([False] * 1000)
    collect_all()


@pytest.mark.parametrize(
    ("occasion", "what"),
    [
        (Occasion(level="quick", moved=False, allocated=True, boundary=False), "nothing"),
        (Occasion(level="quick", moved=True, allocated=True, boundary=False), "young"),
        (Occasion(level="comprehensive", moved=False, allocated=False, boundary=False), "nothing"),
        (Occasion(level="comprehensive", moved=False, allocated=True, boundary=False), "young"),
        (Occasion(level="comprehensive", moved=False, allocated=False, boundary=True), "all"),
        (Occasion(level="quick", moved=False, allocated=False, boundary=False, suspected=True), "all"),
    ],
)
def test_how_much_is_collected_depends_on_the_occasion(occasion, what):
    old, young = old_cycle(), cycle()
    outcome = GarbageCleaner().clean(occasion)
    assert (young() is None, old() is None) == {"nothing": (False, False), "young": (True, False), "all": (True, True)}[
        what
    ]
    assert isinstance(outcome, Skip) == (what == "nothing")
    collect_all()


def test_it_tells_how_many_objects_went():
    cycle()
    outcome = GarbageCleaner().clean(Occasion(level="comprehensive"))
    number, _, rest = str(outcome).partition(" ")
    assert int(number) >= 1
    assert rest == "objects collected"
