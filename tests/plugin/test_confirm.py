"""Running a suspect again: growth in every run is a leak, growth in the first alone is not."""

import pytest

KEPT_ONCE = """
    def test_it():
        if not KEPT:
            KEPT.append(allocate(4 * MiB))
"""
GROWS = """
    def test_it():
        KEPT.append(allocate(4 * MiB))
"""


def test_growth_in_the_first_run_alone_is_told_and_does_not_fail(suite):
    suite.write(KEPT_ONCE)
    result = suite.run("--gpu-leak=fail", "--gpu-leak-confirm=1")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["KEPT test_it.py::test_it: leaked 4.0 MiB*", "*kept once*"])


@pytest.mark.parametrize("times", [1, 3])
def test_growth_in_every_run_is_a_leak_and_charged_as_it_was_first_seen(suite, times):
    suite.write(GROWS)
    result = suite.run("--gpu-leak=fail", f"--gpu-leak-confirm={times}")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: leaked 4.0 MiB on fake:0*"])


def test_growth_that_ends_after_some_runs_is_told_with_their_number(suite):
    suite.write("""
        def test_it():
            if len(KEPT) < 2:
                KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run("--gpu-leak=fail", "--gpu-leak-confirm=3")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*kept in the first 2 of 4 runs*"])


def test_a_clean_test_runs_once(suite):
    suite.write("""
        def test_it():
            print("RAN")
    """)
    assert suite.run("--gpu-leak=fail", "--gpu-leak-confirm=3", "-s").stdout.str().count("RAN") == 1


def test_without_it_a_suspect_runs_once(suite):
    suite.write("def test_it():\n    print('RAN')\n    KEPT.append(allocate(4 * MiB))\n")
    assert suite.run("--gpu-leak=fail", "-s").stdout.str().count("RAN") == 1


def test_fixtures_and_parameters_are_set_up_anew(suite):
    suite.write("""
        @pytest.fixture(scope="module")
        def model():
            print("MODEL")
            yield 1

        @pytest.fixture
        def buffer():
            print("SETUP")
            yield allocate(1)
            print("TEARDOWN")

        @pytest.mark.parametrize("size", [4])
        def test_it(model, buffer, size, request):
            assert request.getfixturevalue("buffer") is buffer
            if not KEPT:
                KEPT.append(allocate(size * MiB))

        def test_next(model):
            pass
    """)
    result = suite.run("--gpu-leak=fail", "--gpu-leak-confirm=1", "-s")
    result.assert_outcomes(passed=2)
    text = result.stdout.str()
    assert (text.count("MODEL"), text.count("SETUP"), text.count("TEARDOWN")) == (1, 2, 2)


def test_a_failure_in_a_run_again_changes_nothing(suite):
    suite.write("""
        RUNS = []

        def test_it():
            RUNS.append(1)
            if len(RUNS) > 1:
                raise ValueError("only once")
            KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run("--gpu-leak=fail", "--gpu-leak-confirm=1")
    assert "only once" not in result.stdout.str()
    assert result.parseoutcomes()["passed"] == 1


def test_an_allowed_leak_is_not_run_again(suite):
    suite.write("""
        @pytest.mark.gpu_leak(allow="known")
        def test_it():
            print("RAN")
            KEPT.append(allocate(4 * MiB))
    """)
    assert suite.run("--gpu-leak=fail", "--gpu-leak-confirm=2", "-s").stdout.str().count("RAN") == 1


def test_a_class_and_a_unittest_case_can_run_again(suite):
    suite.write("""
        import unittest

        class TestPlain:
            def test_it(self):
                if not KEPT:
                    KEPT.append(allocate(4 * MiB))

        class TestCase(unittest.TestCase):
            def test_it(self):
                if len(KEPT) < 2:
                    KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run_apart("--gpu-leak=fail", "--gpu-leak-confirm=1")
    result.assert_outcomes(passed=2)
    assert result.stdout.str().count("KEPT test_it.py") == 2
