"""When to clean: after each test, parametrized run, class, module, or the session."""

import pytest

TESTS = """
    class TestFirst:
        @pytest.mark.parametrize("number", [1, 2])
        def test_a(self, number):
            pass

        def test_b(self):
            pass

    class TestSecond:
        def test_c(self):
            pass

    def test_d():
        pass
"""
FIRST = ["test_one.py::TestFirst::test_a[1]", "test_one.py::TestFirst::test_a[2]", "test_one.py::TestFirst::test_b"]
ONE = [*FIRST, "test_one.py::TestSecond::test_c", "test_one.py::test_d"]
TWO = [name.replace("one", "two") for name in ONE]


@pytest.fixture
def counting(suite):
    suite.conftest("""
        def pytest_gpuclean_cleaners(config):
            return [fakegpu.CLEANER]

        def pytest_runtest_logstart(nodeid):
            fakegpu.CLEANER.test = nodeid

        def pytest_terminal_summary(terminalreporter):
            for test, occasion in fakegpu.CLEANER.calls:
                terminalreporter.write_line(f"CLEANED {test} {occasion.level} {occasion.boundary}")
    """)
    suite.write(TESTS, "test_one")
    suite.write(TESTS, "test_two")
    return suite


def cleaned(result):
    return [line.split()[1:] for line in result.outlines if line.startswith("CLEANED")]


@pytest.mark.parametrize(
    ("every", "after"),
    [
        ("test", [*ONE, *TWO]),
        ("param", [*ONE[:2], *TWO[:2]]),
        ("class", [ONE[2], ONE[3], ONE[4], TWO[2], TWO[3], TWO[4]]),
        ("module", [ONE[-1], TWO[-1]]),
        ("session", [TWO[-1]]),
    ],
)
def test_cleanups_are_due_at_the_end_of_their_scope(counting, every, after):
    result = counting.run("--gpu-clean=quick", f"--gpu-clean-every={every}")
    result.assert_outcomes(passed=10)
    assert [test for test, _, _ in cleaned(result)] == after


def test_a_boundary_is_the_end_of_a_module(counting):
    result = counting.run("--gpu-clean=comprehensive")
    assert [test for test, _, boundary in cleaned(result) if boundary == "True"] == [ONE[-1], TWO[-1]]
    assert {level for _, level, _ in cleaned(result)} == {"comprehensive"}


def test_the_last_test_that_is_selected_ends_every_scope(counting):
    result = counting.run("--gpu-clean=quick", "--gpu-clean-every=session", "-k", "test_c")
    assert [test for test, _, _ in cleaned(result)] == [TWO[3]]


def test_the_gate_judges_each_test_whatever_the_boundary(suite):
    suite.write("""
        def test_leaks():
            KEPT.append(allocate(4 * MiB))

        def test_last():
            pass
    """)
    result = suite.run("--gpu-clean=quick", "--gpu-clean-every=session")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaks*"])


def test_the_gate_alone_cleans_nothing(counting):
    assert cleaned(counting.run("--gpu-leak=fail")) == []


def test_a_markers_boundary_is_that_of_its_tests(counting):
    counting.write(
        """
        @pytest.mark.gpu_clean("quick", every="param")
        @pytest.mark.parametrize("number", [1, 2])
        def test_a(number):
            pass

        @pytest.mark.gpu_clean("quick", every="module")
        def test_b():
            pass

        @pytest.mark.gpu_clean("quick", every="module")
        def test_c():
            pass
    """,
        "test_one",
    )
    result = counting.run("test_one.py")
    assert [test for test, _, _ in cleaned(result)] == [f"test_one.py::test_{name}" for name in ("a[1]", "a[2]", "c")]


def test_a_test_that_fails_or_is_skipped_is_cleaned_after(counting):
    counting.write(
        """
        def test_fails():
            assert 0

        def test_skipped():
            pytest.skip("later")

        @pytest.mark.skip
        def test_never():
            pass
    """,
        "test_one",
    )
    result = counting.run("test_one.py", "--gpu-clean=quick")
    names = [test.rpartition("::")[2] for test, _, _ in cleaned(result)]
    assert names[:2] == ["test_fails", "test_skipped"]


@pytest.mark.skipif(pytest.version_tuple < (8, 1), reason="before pytest 8.1, -x does not end the run at that test")
def test_minus_x_cleans_after_the_test_that_stopped_the_run(counting):
    counting.write(
        """
        def test_fails():
            assert 0

        def test_never():
            pass
    """,
        "test_one",
    )
    result = counting.run("test_one.py", "--gpu-clean=quick", "--gpu-clean-every=session", "-x")
    assert [test for test, _, _ in cleaned(result)] == ["test_one.py::test_fails"]
