"""Known leaks: what is new about a leak, and what of the known ones is no more."""

import random

import pytest

from pytest_gpuclean.leaks.baseline import (
    Acquaintance,
    Known,
    changes,
    known_from,
    merged,
    not_collected,
    renewed,
    stable_name,
)
from pytest_gpuclean.model.leaks import Explanation, Holder, Leak
from pytest_gpuclean.units import KiB, MiB

CACHE = ("test_a.CACHE",)


def known(where="test_a.py::test_a", size=4 * MiB, holders=(), **more):
    figures = {"kind": "test", "device": "cuda:0", "source": "torch", **more}
    return Known(where=where, holders=tuple(holders), leaked_bytes=size, **figures)


def leak(chain="", **more):
    holders = (
        (Holder(kind="module global", chain=chain, cause="module-global", held_bytes=1, count=1),) if chain else ()
    )
    figures = {"kind": "test", "name": "n", "device": "cuda:0", "source": "torch", "leaked_bytes": 4 * MiB}
    return Leak(
        **{**figures, **more}, threshold_bytes=MiB, explanation=Explanation(holders=holders) if holders else None
    )


def news(baseline, *found):
    met = Acquaintance(baseline)
    return [met.meet(one) for one in found]


# -- meeting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4 * MiB, 4 * MiB + 64 * KiB, 1])
def test_what_is_known_is_nothing_new(size):
    assert news([known()], known(size=size)) == [""]


@pytest.mark.parametrize("size", [4 * MiB + 65 * KiB, 8 * MiB])
def test_what_is_larger_is_new(size):
    assert news([known()], known(size=size)) == ["it is larger than the 4.0 MiB that are known"]


@pytest.mark.parametrize(
    "other",
    [
        known("test_a.py::test_b"),
        known(device="cuda:1"),
        known(source="jax"),
        known(kind="fixture", fixture="model"),
        known(holders=["test_a.OTHER"]),
    ],
    ids=["test", "device", "source", "kind", "holder"],
)
def test_another_leak_is_new(other):
    assert news([known(holders=CACHE)], other) == ["it is new"]


def test_a_holder_that_was_not_looked_up_says_nothing():
    assert news([known(holders=CACHE)], known()) == [""]
    assert news([known()], known(holders=CACHE)) == [""]


def test_a_test_that_runs_again_is_as_known_as_before():
    assert news([known(holders=CACHE)], known(holders=CACHE), known(holders=CACHE)) == ["", ""]


def test_a_first_use_cache_may_be_another_tests_this_time():
    assert news([known(holders=CACHE)], known("test_a.py::test_b", holders=CACHE)) == [""]


def test_a_first_use_cache_comes_once_a_process():
    baseline = [known(holders=CACHE)]
    assert news(baseline, *(known(f"test_a.py::test_{n}", holders=CACHE) for n in "bc")) == ["", "it is new"]


def test_what_another_test_has_used_up_is_not_known_any_more():
    found = (known("test_a.py::test_b", holders=CACHE), known(holders=CACHE))
    assert news([known(holders=CACHE)], *found) == [
        "",
        "test_a.py::test_b has kept what is known of test_a.CACHE already",
    ]


def test_a_test_with_a_leak_of_its_own_may_be_the_first_user_too():
    baseline = [known(holders=CACHE, size=16 * MiB), known("test_a.py::test_b", 2 * MiB, CACHE)]
    assert news(baseline, known("test_a.py::test_b", 18 * MiB, CACHE)) == [""]
    assert news(baseline, known("test_a.py::test_b", 19 * MiB, CACHE)) == [
        "it is larger than the 2.0 MiB that are known"
    ]


def test_a_moved_leak_takes_the_smallest_that_is_enough():
    baseline = [known("test_a.py::big", 64 * MiB, CACHE), known("test_a.py::small", 4 * MiB, CACHE)]
    assert news(baseline, known("x", 4 * MiB, CACHE), known("y", 64 * MiB, CACHE)) == ["", ""]


def test_another_holder_lends_nothing():
    assert news([known(holders=["test_a.OTHER"])], known("test_a.py::test_b", holders=CACHE)) == ["it is new"]


def test_whatever_the_order_a_suite_that_leaks_as_before_has_nothing_new():
    baseline = [known(f"t{n}", (n + 1) * MiB, ["test_a.TABLE"]) for n in range(6)]
    for seed in range(20):
        order = baseline[:]
        random.Random(seed).shuffle(order)
        assert news(baseline, *order) == [""] * 6


def test_whatever_the_order_one_leak_more_is_seen():
    baseline = [known(f"t{n}", 4 * MiB, CACHE) for n in range(6)]
    for seed in range(20):
        order = [*baseline, known("new", 4 * MiB, CACHE)]
        random.Random(seed).shuffle(order)
        assert len([text for text in news(baseline, *order) if text]) == 1


# -- from a leak ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "where", "fixture"),
    [
        ({}, "t/test_a.py::TestIt::test_a[x::y]", ""),
        ({"kind": "fixture", "name": "model", "scope": "module"}, "t/test_a.py", "model"),
        ({"kind": "fixture", "name": "model", "scope": "class"}, "t/test_a.py::TestIt", "model"),
        ({"kind": "fixture", "name": "model", "scope": "session"}, "", "model"),
        ({"kind": "module", "name": "t/test_a.py"}, "t/test_a.py", ""),
        ({"kind": "session", "name": "the whole run"}, "", ""),
    ],
)
def test_a_leak_belongs_to_what_has_made_it(more, where, fixture):
    found = known_from(leak(**more), "t/test_a.py::TestIt::test_a[x::y]")
    assert (found.where, found.fixture) == (where, fixture)


def test_a_peak_keeps_nothing():
    assert known_from(leak(kind="peak"), "t") is None


@pytest.mark.parametrize(
    ("chain", "name"),
    [
        ('test_a.CACHE["k]ey"][3].weight -> list -> Tensor', "test_a.CACHE.weight"),
        ("test_a.CACHE[3]", "test_a.CACHE"),
        ("thread Thread-12 (loop): test_a.py:12 in loop", "thread Thread- (loop): test_a.py: in loop"),
        ("closure of test_a.make: x", "closure of test_a.make: x"),
        ("layer1.weight", "layer1.weight"),
    ],
)
def test_a_holder_is_named_without_what_changes(chain, name):
    assert stable_name(chain) == name
    assert known_from(leak(chain), "t").holders == (name,)


# -- at the end -------------------------------------------------------------------------------------------------------


def test_what_is_smaller_cured_or_gone_is_told():
    baseline = [known("a.py::smaller"), known("a.py::cured"), known("a.py::gone"), known("b.py", kind="module")]
    found = changes(baseline, [known("a.py::smaller", MiB)], {"a.py::smaller", "a.py::cured"})
    assert [(one.where, size) for one, size in found.smaller] == [("a.py::smaller", MiB)]
    assert [one.where for one in found.cured] == ["a.py::cured"]
    assert [one.where for one in found.gone] == ["a.py::gone", "b.py"]


def test_a_cache_that_has_moved_is_neither_cured_nor_gone():
    found = changes([known("a.py::a", holders=CACHE)], [known("a.py::b", holders=CACHE)], {"a.py::a", "a.py::b"})
    assert found == changes([], [], ())


def test_a_little_less_is_the_same():
    assert changes([known()], [known(size=4 * MiB - 64 * KiB)], {"test_a.py::test_a"}).smaller == ()


def test_the_largest_of_an_owner_counts():
    assert merged([known(size=MiB), known(size=3 * MiB), known(size=2 * MiB)]) == [known(size=3 * MiB)]


def test_a_new_list_has_the_old_figure_where_it_is_the_same_leak():
    old = [known("a", 4 * MiB, CACHE), known("b", 4 * MiB), known("c", 4 * MiB)]
    new = renewed(old, [known("b", MiB), known("a", 4 * MiB + KiB), known("d", MiB)])
    assert new == [known("a", 4 * MiB, CACHE), known("b", MiB), known("d", MiB)]


def test_the_order_of_a_list_does_not_depend_on_that_of_the_tests():
    found = [known(where, device=device) for where in "cab" for device in ("cuda:1", "cuda:0")]
    assert renewed([], found) == renewed([], found[::-1])


def test_files_of_which_nothing_was_collected_are_named():
    baseline = [known("a.py::x[b.py::y]"), known("c.py::x"), known("", kind="session")]
    assert list(not_collected(baseline, {"a.py::z"})) == ["c.py"]
