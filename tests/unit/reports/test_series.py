"""The tests of a long run: all of them come back, and they take little room."""

import tracemalloc

from pytest_gpuclean.reports.series import Series
from pytest_gpuclean.units import MiB
from unit.reports.world import entry, leak, left, use


def test_what_goes_in_comes_back():
    entries = [
        entry("test_1"),
        entry("test_2", "failed", worker="gw1", memory=(use(0, MiB, 2 * MiB), use(1, 2, None, "cuda:1"))),
        entry("test_3", "error", leaks=(leak(),), file="test_a.py", line=3, memory=(use(5, 6, 7),)),
        entry("test_3", "rerun", attempt=3, given_back_bytes=2**40, cost_seconds=1.5),
        entry("test_4", left=(left(),), worker="gw0"),
        entry("test_5", "xpassed", memory=(use(2**45, 2**45, 2**46),)),
    ]
    series = Series()
    for each in entries:
        series.append(each)
    assert list(series) == entries
    assert list(series) == entries  # as often as it is asked for
    assert len(series) == 6
    assert series.workers() == ("gw0", "gw1")


def test_none_is_empty():
    assert (list(Series()), Series().workers()) == ([], ())


def test_a_hundred_thousand_tests_take_less_than_20_megabytes():
    name = "tests/test_model.py::test_it"
    uses = (use(MiB, 2 * MiB, 3 * MiB), use(0, MiB, MiB, "cuda:1"))
    series = Series()
    tracemalloc.start()
    try:
        for _ in range(100_000):
            series.append(entry(name, worker="gw1", memory=uses))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 20 * MiB
