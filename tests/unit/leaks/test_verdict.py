"""The decision, as tables of numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_gpuclean.leaks.verdict import Split, judge, judged_growth
from pytest_gpuclean.model.memory import ARRAYS, HEAP, Account

CUDA = Account("cuda:0", "torch")


@pytest.mark.parametrize(
    ("growth", "owned", "drift", "threshold", "expected"),
    [
        (0, 0, 0, 10, Split(0, 0)),
        (10, 0, 0, 10, Split(0, 10)),  # the threshold itself passes
        (11, 0, 0, 10, Split(11, 0)),
        (-50, 0, 0, 10, Split(0, -50)),
        (0, 0, 500, 10, Split(0, 0)),  # drift alone is no test's
        (50, 50, 0, 10, Split(0, 0)),  # gradients of a module's model
        (50, 40, 0, 10, Split(0, 10)),
        (50, 39, 0, 10, Split(11, 0)),
        # A fixture that shrank may explain a fall, but never makes a leak: it may have shrunk long before.
        (0, -20, 0, 10, Split(0, 0)),
        (-20, -20, 0, 10, Split(0, 0)),
        (-30, -20, 0, 10, Split(0, -10)),
        # It took over what an earlier test kept: the drift pays, the test does not.
        (0, 20, 20, 10, Split(0, -20)),
        (30, 5, 5, 10, Split(30, -5)),  # what it took over was kept earlier: all of this growth is the test's
        (1, 0, 0, 0, Split(1, 0)),
    ],
)
def test_a_windows_growth_divides_into_leaked_and_kept(growth, owned, drift, threshold, expected):
    assert judge(growth, owned, drift, threshold) == expected


NUMBERS = st.integers(-(2**50), 2**50)


@given(NUMBERS, NUMBERS, NUMBERS, st.integers(0, 2**40))
def test_leaked_kept_and_explained_add_up_to_the_growth(growth, owned, drift, threshold):
    split = judge(growth, owned, drift, threshold)
    explained = max(owned, min(growth, 0))
    assert split.leaked_bytes + split.kept_bytes + explained == growth


@given(NUMBERS, NUMBERS, NUMBERS, st.integers(0, 2**40))
def test_a_charge_is_above_the_threshold_and_never_more_than_the_growth(growth, owned, drift, threshold):
    leaked = judge(growth, owned, drift, threshold).leaked_bytes
    assert leaked == 0 or threshold < leaked <= growth


@given(NUMBERS, st.integers(0, 2**40))
def test_without_fixtures_a_test_is_charged_all_of_a_growth_above_the_threshold(growth, threshold):
    assert judge(growth, 0, 0, threshold) == (Split(growth, 0) if growth > threshold else Split(0, growth))


@given(NUMBERS, st.integers(0, 2**50), NUMBERS, st.integers(0, 2**40))
def test_what_a_fixture_took_in_since_the_window_began_is_never_charged(growth, owned, drift, threshold):
    taken_in_earlier = min(owned, max(drift, 0))
    if growth - (owned - taken_in_earlier) <= threshold:
        assert judge(growth, owned, drift, threshold).leaked_bytes == 0


@pytest.mark.parametrize(
    ("share", "account", "growth"),
    [
        ({CUDA: 5}, CUDA, 5),
        ({}, CUDA, 0),
        ({ARRAYS: 7}, ARRAYS, 7),
        ({ARRAYS: 7, HEAP: 10}, ARRAYS, 7),
        ({ARRAYS: 7, HEAP: 4}, ARRAYS, 4),  # arrays that came with memory the heap already had
        ({ARRAYS: 7, HEAP: -4}, ARRAYS, 0),
        ({ARRAYS: -7, HEAP: 4}, ARRAYS, -7),
        ({HEAP: 9}, HEAP, 9),
    ],
)
def test_host_memory_is_judged_by_live_arrays_and_no_more_than_the_heap_grew_by(share, account, growth):
    assert judged_growth(share, account) == growth


@pytest.mark.parametrize(
    ("heap", "uncounted", "growth"),
    [
        (40, 1, 17),
        (16, 1, 16),  # one of them came before this window
        (16, 0, 17),
        (15, 1, 17),  # the heap has given something else back
        (-3, 1, 17),
    ],
)
def test_of_arrays_that_were_counted_lately_no_more_is_taken_off_than_may_have_come_since(heap, uncounted, growth):
    assert judged_growth({ARRAYS: 17, HEAP: heap}, ARRAYS, uncounted) == growth
