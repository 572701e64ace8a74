"""pytest-rerunfailures and flaky: a failure may be forgiven, a leak may not, and attempts are counted alike."""

import pytest

from .street import MIXED, in_full

FAILS_AT_FIRST = """
    RUNS = {}

    def attempt(name):
        RUNS[name] = RUNS.get(name, 0) + 1
        return RUNS[name]

    def test_fails_once():
        buffer = allocate(16 * MiB)
        assert attempt("fails") > 1

    def test_always_fails():
        buffer = allocate(16 * MiB)
        assert attempt("always") == 0

    def test_leaks_and_fails_once():
        if attempt("leaks") == 1:
            KEPT.append(allocate(4 * MiB))
            assert 0

    def test_passes():
        assert attempt("passes") == 1

    class TestIt:
        def test_keeps_on_itself(self):
            self.buffer = allocate(8 * MiB)
            assert attempt("class") > 1

    @pytest.fixture
    def breaks():
        yield
        assert attempt("fixture") > 1

    def test_teardown_fails_once(breaks):
        buffer = allocate(8 * MiB)
"""


def counted(seen):
    """The facts of all tests but those that leak: they run again for it."""
    return {test: facts for test, facts in seen.facts().items() if "leaks" not in test}


@pytest.mark.parametrize(
    "more",
    [
        ("--reruns=2",),
        pytest.param(("--reruns=2", "--only-rerun=AssertionError"), marks=in_full),
        pytest.param(("--reruns=2", "--rerun-except=OSError"), marks=in_full),
        pytest.param(("--reruns=1", "--fail-on-flaky"), marks=in_full),
        pytest.param(("--reruns=1", "-p", "xdist", "-n2"), marks=in_full),
        pytest.param(("--reruns=1", "--reruns-delay=0.1", "-x"), marks=in_full),
    ],
    ids=" ".join,
)
def test_rerunfailures(street, more):
    pytest.importorskip("pytest_rerunfailures")
    if "xdist" in more:
        pytest.importorskip("xdist")
    street.write(FAILS_AT_FIRST)
    beside = street.beside("-p", "rerunfailures", *more, apart=True)
    alone = street.alone("-p", "rerunfailures", *more, apart=True)
    if "-x" not in more:
        assert counted(beside) == counted(alone)
        assert set(beside.leaky) == {"test_it.py::test_leaks_and_fails_once"}
        last = [report for report in beside.reports if "leaks" in report.test][-1]
        assert (last.when, last.outcome) == ("teardown", "failed")
    assert "INTERNALERROR" not in beside.text
    assert alone.text.count("RERUN") <= beside.text.count("RERUN")


def test_the_error_of_a_module_fixture_that_rerunfailures_keeps_is_no_leak(street):
    pytest.importorskip("pytest_rerunfailures")
    street.write("""
        @pytest.fixture(scope="module")
        def broken():
            buffer = allocate(8 * MiB)
            raise OSError("at setup")

        def test_broken(broken):
            pass

        def test_broken_again(broken):
            pass

        def test_last():
            pass
    """)
    beside, alone = street.both("-p", "rerunfailures", apart=True)
    assert beside.text.count('raise OSError("at setup")') == alone.text.count('raise OSError("at setup")') == 2


@in_full
def test_flaky(street):
    pytest.importorskip("flaky")
    street.write(FAILS_AT_FIRST)
    arguments = "-p", "flaky", "--force-flaky", "--max-runs=3"
    beside, alone = street.beside(*arguments, apart=True), street.alone(*arguments, apart=True)
    assert counted(beside) == counted(alone)
    assert set(beside.leaky) == {"test_it.py::test_leaks_and_fails_once"}
    assert "===Flaky Test Report===" in beside.text
    lines = [
        {line for line in seen.text.splitlines() if " passed " in line or " failed" in line} for seen in (beside, alone)
    ]
    told = [{line for line in found if line.startswith("test_") and "leaks" not in line} for found in lines]
    assert told[0] == told[1] != set()


@in_full
def test_flaky_and_rerunfailures_together(street):
    pytest.importorskip("flaky")
    pytest.importorskip("pytest_rerunfailures")
    street.write(MIXED)
    arguments = "-p", "flaky", "-p", "rerunfailures", "--reruns=1"
    beside, alone = street.beside(*arguments, apart=True), street.alone(*arguments, apart=True)
    assert counted(beside) == counted(alone)
    assert {test.rpartition("::")[2] for test in beside.leaky} == {"test_leaks", "test_leaks_too"}


def test_flaky_keeps_no_error_of_a_test_that_it_does_not_run_again(street):
    pytest.importorskip("flaky")
    pytest.importorskip("numpy")
    street.write("""
        import pytest
        import numpy

        def make():
            return numpy.zeros(8 * MiB, dtype=numpy.uint8)

        def test_fails_in_a_function_that_knows_an_array():
            buffer = make()

            def check():
                assert buffer.any()

            check()

        def test_fails_with_an_array():
            raise ValueError(make())

        @pytest.mark.xfail
        def test_is_expected_to_fail():
            raise ValueError(make())

        def test_skips():
            pytest.skip("not today")
    """)
    gate = "--gpu-leak=fail", "--gpu-leak-watch=host"
    beside = street.beside("-p", "flaky", gate=gate, apart=True)
    alone = street.alone("-p", "flaky", apart=True)
    assert not beside.leaky
    assert counted(beside) == counted(alone)
    assert "INTERNALERROR" not in beside.text


def test_flaky_leaves_a_class_what_it_needs_at_its_end(street):
    pytest.importorskip("flaky")
    pytest.importorskip("numpy")
    street.write("""
        import unittest
        import numpy

        class TestServer(unittest.TestCase):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                self.ports = [4242]

            def test_keeps_on_itself(self):
                self.buffer = numpy.zeros(8 * MiB, dtype=numpy.uint8)

            def __del__(self):
                assert self.ports == [4242]
    """)
    gate = "--gpu-leak=fail", "--gpu-leak-watch=host"
    beside = street.beside("-p", "flaky", "-W", "error", gate=gate, apart=True)
    assert not beside.leaky
    assert "1 passed" in beside.text and "PytestUnraisableExceptionWarning" not in beside.text


def test_flaky_leaves_no_class_with_what_knows_its_test(street):
    pytest.importorskip("flaky")
    pytest.importorskip("numpy")
    street.write("""
        import types
        import unittest
        import numpy

        KEPT = types.SimpleNamespace()

        class TestModel(unittest.TestCase):
            def setUp(self):
                self.buffer = numpy.zeros(8 * MiB, dtype=numpy.uint8)
                self.tester = types.SimpleNamespace(parent=self, config={})

            def test_uses_a_helper(self):
                assert self.tester.parent.buffer.any() == False

            def test_expects_an_error(self):
                with self.assertRaises(ValueError) as self.caught:
                    int("many")

            def test_fails(self):
                assert self.buffer.any()

            def test_is_known_to_another(self):
                KEPT.tester = self.tester
    """)
    gate = "--gpu-leak=fail", "--gpu-leak-watch=host"
    beside = street.beside("-p", "flaky", gate=gate, apart=True)
    assert set(beside.leaky) == {"test_it.py::TestModel::test_is_known_to_another"}
    assert "held by test_it.KEPT.tester.parent.buffer" in beside.text
