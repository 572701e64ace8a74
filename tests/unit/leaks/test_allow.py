"""gpu_leak_allow: patterns with reasons, and which leaks they cover."""

import pytest

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.leaks.allow import Allowed, allowance_of, parse_allowances
from pytest_gpuclean.model.leaks import Explanation, Holder, Leak
from pytest_gpuclean.units import MiB


def holder(chain, size, cause="module-global"):
    return Holder(kind="module global", chain=chain, cause=cause, held_bytes=size, count=1)


def leak(*holders, size=8 * MiB, explained=None, name="test_a.py::test_it[a-b]"):
    explained = size if explained is None else explained
    explanation = Explanation(holders=holders, explained_bytes=explained) if holders else None
    return Leak(
        kind="test",
        name=name,
        device="cuda:0",
        source="torch",
        leaked_bytes=size,
        threshold_bytes=MiB,
        explanation=explanation,
    )


@pytest.mark.parametrize(
    ("line", "pattern", "reason"),
    [
        ("transformers.*  first-use cache", "transformers.*", "first-use cache"),
        ("transformers.* first-use cache", "transformers.*", "first-use cache"),
        ("test_a.py::test_it[a b]  a parameter with a space", "test_a.py::test_it[a b]", "a parameter with a space"),
        ("x\tbecause of y  z", "x", "because of y  z"),
    ],
)
def test_a_line_is_a_pattern_and_a_reason(line, pattern, reason):
    assert parse_allowances([line], "gpu_leak_allow") == (Allowed(pattern, reason),)


def test_empty_lines_are_left_out():
    assert parse_allowances(["", "  ", "a  b"], "s") == (Allowed("a", "b"),)
    assert parse_allowances("a  b\n\nc  d", "s") == (Allowed("a", "b"), Allowed("c", "d"))


@pytest.mark.parametrize("value", [["transformers.*"], ["ok  why", "x  "], 3])
def test_a_reason_is_required(value):
    with pytest.raises(InputError, match="^gpu_leak_allow in pytest.ini: "):
        parse_allowances(value, "gpu_leak_allow in pytest.ini")


@pytest.mark.parametrize(
    ("pattern", "covers"),
    [
        ("test_a.py::*", True),
        ("test_a.py::test_it[a-b]", True),
        ("test_a.py::test_it[?-b]", True),
        ("test_a.py::test_it[ab]", False),
        ("test_a.py", False),
        ("test_b.py::*", False),
        ("*", True),
        ("test_a.CACHE[*", True),
        ("module-global", True),
        ("test_a.CACHE", False),
        ("(", False),
    ],
)
def test_a_pattern_is_one_of_tests_holders_or_causes(pattern, covers):
    assert Allowed(pattern, "why").covers(leak(holder("test_a.CACHE[3]", 8 * MiB)), "test_a.py::test_it[a-b]") is covers


@pytest.mark.parametrize(
    ("holders", "explained", "covers"),
    [
        ([holder("a.X", 8 * MiB)], 8 * MiB, True),
        ([holder("a.X", 4 * MiB), holder("a.Y", 4 * MiB)], 8 * MiB, True),
        ([holder("a.X", 4 * MiB), holder("b.Y", 4 * MiB)], 8 * MiB, False),
        ([holder("a.X", 7 * MiB), holder("b.Y", 1 * MiB)], 8 * MiB, True),
        ([holder("a.X", 4 * MiB)], 4 * MiB, False),
        ([holder("b.Y", 1 * MiB)], 8 * MiB, False),
        ([], 8 * MiB, False),
    ],
    ids=["all", "both", "half", "most", "half is not explained", "none", "not looked up"],
)
def test_a_holder_allows_what_it_holds_and_no_more(holders, explained, covers):
    assert Allowed("a.*", "why").covers(leak(*holders, explained=explained), "t") is covers


def test_the_first_line_that_covers_a_leak_counts():
    lines = parse_allowances(["b*  no", "t*  first", "*  second"], "s")
    assert allowance_of(lines, leak(), "t").reason == "first"
    assert allowance_of((), leak(), "t") is None
