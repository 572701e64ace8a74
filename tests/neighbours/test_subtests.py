"""Subtests: pytest's own (9.0), those of the plugin pytest-subtests, and unittest's."""

import pytest

from .street import in_full

HAS_OWN = pytest.version_tuple >= (9, 0)
SUBTESTS = """
    import unittest

    def test_fails_in_one_and_leaks(subtests):
        for number in range(3):
            with subtests.test(number=number):
                KEPT.append(allocate(2 * MiB))
                assert number != 1

    def test_frees(subtests):
        for number in range(3):
            with subtests.test("a message", number=number):
                buffer = allocate(4 * MiB)

    class TestCase(unittest.TestCase):
        def test_fails_in_one_and_leaks(self):
            for number in range(3):
                with self.subTest(number=number):
                    KEPT.append(allocate(2 * MiB))
                    self.assertNotEqual(number, 1)

        def test_frees(self):
            for number in range(3):
                with self.subTest(number=number):
                    self.buffer = allocate(4 * MiB)
"""
OWN = pytest.param((), id="pytest's own", marks=pytest.mark.skipif(not HAS_OWN, reason="came with pytest 9.0"))
PLUGIN = pytest.param(("-p", "subtests"), id="the plugin")


@pytest.fixture
def which(request):
    """The options that bring the subtests."""
    if request.param:
        pytest.importorskip("pytest_subtests")
    return request.param


@pytest.mark.parametrize("which", [OWN, PLUGIN], indirect=True)
@pytest.mark.parametrize("more", [pytest.param((), marks=in_full), ("--gpu-leak-confirm=1",)], ids=["", "confirmed"])
def test_each_subtest_is_told_once_and_the_leak_is_the_tests(street, which, more):
    street.write(SUBTESTS)
    # The plugin changes unittest's part of pytest in its process.
    beside, alone = street.beside(*which, *more, apart=True), street.alone(*which, apart=True)
    assert beside.facts() == alone.facts()
    assert set(beside.leaky) == {test for test in beside.order if "leaks" in test}
    beside.result.stdout.fnmatch_lines(["LEAK test_it.py::test_fails_in_one_and_leaks: leaked 6.0 MiB*"])
    told = [report for report in beside.reports if report.kind.lower() == "subtestreport"]
    assert len(told) >= 6


@pytest.mark.parametrize("which", [OWN, PLUGIN], indirect=True)
@pytest.mark.parametrize("is_unittest", [False, True], ids=["in a function", "in a unittest case"])
def test_a_test_whose_subtests_were_told_does_not_run_again_when_memory_runs_out(street, which, is_unittest):
    subtest = "self.subTest()" if is_unittest else "subtests.test()"
    body = f"""
        with {subtest}:
            pass
        RUNS.append(1)
        if len(RUNS) == 1:
            allocate(2048 * MiB)
    """
    if is_unittest:
        text = f"import unittest\nRUNS = []\nclass TestIt(unittest.TestCase):\n    def test_it(self):{body}"
    else:
        text = f"RUNS = []\ndef test_it(subtests):{body}"
    street.write(text)
    seen = street.beside(*which, "--gpu-oom-retry=1", apart=bool(which))
    assert seen.text.count("retried") == 0
    assert [report.outcome for report in seen.reports if report.when == "call"].count("failed") == 1
    assert len([report for report in seen.reports if report.kind.lower() == "subtestreport"]) <= 1
