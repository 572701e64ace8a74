"""Which storages a leak is made of: the young before the old, the large before the small, and no more than it needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_gpuclean.leaks.suspects import choose_suspects
from pytest_gpuclean.units import KiB, MiB


def key(name):
    return ("memory", ord(name))


def choose(sizes, leaked_bytes, older=""):
    found = choose_suspects(
        {key(name): size for name, size in sizes.items()}, [key(name) for name in older], leaked_bytes
    )
    return "".join(chr(number) for _, number in found)


@pytest.mark.parametrize(
    ("sizes", "leaked_bytes", "older", "chosen"),
    [
        ({"a": 16 * MiB}, 16 * MiB, "", "a"),
        ({"a": 8 * MiB, "b": 16 * MiB}, 24 * MiB, "", "ba"),
        ({"a": 64 * MiB, "b": 16 * MiB}, 16 * MiB, "", "b"),
        ({"a": 16 * MiB, "b": 16 * MiB}, 16 * MiB, "a", "b"),
        ({"a": 16 * MiB, "b": 16 * MiB}, 16 * MiB, "", "b"),
        ({"a": 16 * MiB}, 16 * MiB, "a", "a"),
        ({"a": 16 * MiB, "b": 4 * KiB}, 16 * MiB, "", "a"),
        ({"a": 16 * MiB + 512}, 16 * MiB, "", "a"),
        ({"a": 16 * MiB}, 64 * MiB, "", "a"),
        ({}, 16 * MiB, "", ""),
        (dict.fromkeys("abcdefgh", MiB // 2), 4 * MiB, "", "hgfedcba"),
        ({"a": 15 * MiB, "b": MiB}, 16 * MiB, "a", "ba"),
        ({"a": 4 * MiB, "b": MiB}, 16 * MiB, "a", "b"),
        ({"a": 4 * MiB}, 4 * MiB - 200 * KiB, "", "a"),
        ({"a": 64 * MiB, "b": 16 * MiB, "c": 32 * MiB}, 8 * MiB, "a", "b"),
        ({"a": 64 * MiB, "b": 16 * MiB, "c": 2 * MiB}, 8 * MiB, "", "bc"),
        ({"a": 64 * MiB, "b": 8 * MiB}, 8 * MiB, "", "b"),
        ({"a": 8 * MiB, "b": 16 * MiB}, 8 * MiB, "a", "b"),
    ],
    ids=[
        "the only one",
        "the larger first",
        "none that is larger than the leak",
        "what was there before is not it",
        "of two alike the younger",
        "an address that was known, where nothing else explains it",
        "no more than the leak needs",
        "an allocator rounds",
        "all, where they do not suffice",
        "nothing is alive",
        "many small ones",
        "the rest from what was there before",
        "nothing from there that leaves it unexplained",
        "something small was freed meanwhile",
        "something large was freed meanwhile",
        "something large was freed meanwhile, and something small is new",
        "none that is larger where the others suffice",
        "a larger one before what was there before",
    ],
)
def test_what_a_leak_is_made_of(sizes, leaked_bytes, older, chosen):
    assert choose(sizes, leaked_bytes, older) == chosen


def test_no_part_of_what_added_up_is_larger_than_what_a_single_test_may_keep():
    sizes = {key("a"): 16 * MiB, key("b"): MiB // 2, key("c"): MiB // 2}
    assert choose_suspects(sizes, (), 17 * MiB, largest_bytes=MiB) == [key("c"), key("b")]


@pytest.mark.parametrize("told", ["a", "b"])
def test_of_the_older_those_that_are_the_same_as_before_come_last(told):
    sizes = {key("a"): MiB, key("b"): MiB}
    (other,) = {key("a"), key("b")} - {key(told)}
    assert choose_suspects(sizes, sizes.keys(), MiB, told=[key(told)]) == [other]
    assert set(choose_suspects(sizes, sizes.keys(), 2 * MiB, told=[key(told)])) == sizes.keys()


@given(
    st.dictionaries(st.tuples(st.just("memory"), st.integers(0, 500)), st.integers(1, 64 * MiB), max_size=60),
    st.lists(st.tuples(st.just("memory"), st.integers(0, 500))),
    st.integers(1, 256 * MiB),
)
def test_all_but_one_explain_no_more_than_the_leak(sizes, older, leaked_bytes):
    chosen = choose_suspects(sizes, older, leaked_bytes)
    assert len(set(chosen)) == len(chosen)
    parts = sorted((sizes[identity] for identity in chosen), reverse=True)
    if parts and parts[0] > leaked_bytes:
        parts = parts[1:]
    assert sum(parts) <= leaked_bytes + max(leaked_bytes * 0.02, 256 * KiB)
