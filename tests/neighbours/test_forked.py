"""pytest-forked: each test in a process of its own, which its leak does not outlive; it is told all the same."""

import pytest

from .street import MIXED, in_full

pytest.importorskip("pytest_forked")

FORKED = ("-p", "pytest_forked", "--forked")


@pytest.fixture
def forked(street):
    """The options, where this pytest-forked works with this pytest at all (1.7.5 does not with 9.0 and later)."""
    street.write("def test_it():\n    pass\n")
    if street.alone(*FORKED, apart=True).result.ret != 0:
        pytest.skip(f"this pytest-forked does not work with pytest {pytest.__version__}, also without the plugin")
    return FORKED


@pytest.mark.parametrize("more", [(), pytest.param(("-p", "xdist", "-n2"), marks=in_full)], ids=" ".join)
def test_outcomes(street, forked, more):
    if more:
        pytest.importorskip("xdist")
    street.write(MIXED)
    beside, alone = street.both(*forked, *more, apart=True)
    assert sorted(beside.order) == sorted(alone.order)
    assert len(beside.leaky) == 2
    beside.result.stdout.fnmatch_lines(["LEAK test_it.py::test_leaks: leaked 4.0 MiB*"])


def test_a_test_that_dies_takes_nothing_with_it(street, forked):
    street.write("""
        import os
        import signal

        def test_leaks():
            KEPT.append(allocate(4 * MiB))

        def test_dies():
            os.kill(os.getpid(), signal.SIGKILL)

        def test_clean():
            assert not KEPT
    """)
    beside, alone = street.both(*forked, apart=True)
    crashed = [[r.text for r in seen.reports if "dies" in r.test] for seen in (beside, alone)]
    assert crashed[0] == crashed[1]
    assert "signal 9" in crashed[0][0]
    assert beside.leaky == {"test_it.py::test_leaks": 1}


def test_a_process_that_a_forked_test_leaves_is_stopped_at_the_end_of_the_run(street, forked):
    street.write("""
        import subprocess
        import sys

        def test_starts_one():
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    """)
    seen = street.beside(*forked, apart=True)
    seen.result.assert_outcomes(passed=1)
    seen.result.stdout.fnmatch_lines(
        ["STOPPED the whole run: python -c *: ended by *started by test_it.py::test_starts_one"]
    )
