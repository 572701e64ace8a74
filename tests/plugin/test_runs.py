"""Whatever else a run does: reruns, workers, collection alone, and being off."""

import re

import pytest

LEAKS_IN_ITS_FIRST_ATTEMPT = """
    RUNS = []

    def test_it():
        RUNS.append(1)
        if len(RUNS) == 1:
            KEPT.append(allocate(4 * MiB))
            assert 0
"""


@pytest.fixture
def needs_rerunfailures():
    pytest.importorskip("pytest_rerunfailures")


@pytest.fixture
def needs_xdist():
    pytest.importorskip("xdist")


# -- reruns -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("needs_rerunfailures")
def test_a_leak_in_any_attempt_is_final(suite):
    suite.write(LEAKS_IN_ITS_FIRST_ATTEMPT)
    result = suite.run_apart("--gpu-leak=fail", "-p", "rerunfailures", "--reruns=2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["gpuclean: leaked 4.0 MiB on fake:0*"])
    result.stdout.fnmatch_lines(["LEAK test_it.py::test_it: leaked 4.0 MiB*"])


@pytest.mark.usefixtures("needs_rerunfailures")
def test_a_test_that_fails_once_and_does_not_leak_passes(suite):
    suite.write("""
        RUNS = []

        def test_it():
            buffer = allocate(4 * MiB)
            RUNS.append(1)
            assert len(RUNS) > 1
    """)
    result = suite.run_apart("--gpu-leak=fail", "-p", "rerunfailures", "--reruns=2")
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}


@pytest.mark.usefixtures("needs_rerunfailures")
def test_each_leak_of_each_attempt_is_told_once(suite):
    suite.write("""
        def test_it():
            KEPT.append(allocate(4 * MiB))
            assert 0
    """)
    result = suite.run_apart("--gpu-leak=fail", "-p", "rerunfailures", "--reruns=1")
    assert result.stdout.str().count("LEAK test_it.py::test_it: leaked 4.0 MiB") == 2


@pytest.mark.usefixtures("needs_rerunfailures")
def test_reruns_and_confirmation_go_together(suite):
    suite.write("""
        def test_kept():
            if not KEPT:
                KEPT.append(allocate(4 * MiB))

        def test_grows():
            KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run_apart("--gpu-leak=fail", "--gpu-leak-confirm=1", "-p", "rerunfailures", "--reruns=1")
    result.stdout.fnmatch_lines(["KEPT test_it.py::test_kept: *"])
    result.stdout.fnmatch_lines(["LEAK test_it.py::test_grows: *"])
    assert result.parseoutcomes()["passed"] >= 1


# -- workers ----------------------------------------------------------------------------------------------------------

WORKERS = [[], ["-p", "xdist", "-n0"], ["-p", "xdist", "-n2"]]


@pytest.mark.usefixtures("needs_xdist")
@pytest.mark.parametrize("workers", WORKERS, ids=["none", "n0", "n2"])
def test_leaks_are_the_same_with_and_without_workers(suite, workers):
    suite.write("""
        def test_leaks():
            KEPT.append(allocate(4 * MiB))

        @pytest.mark.gpu_leak(allow="known")
        def test_allowed():
            KEPT.append(allocate(8 * MiB))

        @pytest.mark.xfail
        def test_xfails():
            KEPT.append(allocate(16 * MiB))
            assert 0

        def test_clean():
            node = [allocate(4 * MiB)]
            node.append(node)
    """)
    result = suite.run_apart("--gpu-clean=quick", *workers)
    result.assert_outcomes(passed=3, xfailed=1, errors=2)
    told = sorted(line for line in result.outlines if re.match(r"LEAK|ALLOWED|TROUBLE|given back", line))
    assert told == [
        "ALLOWED test_it.py::test_allowed: leaked 8.0 MiB on fake:0 (threshold 1.0 MiB)",
        "LEAK test_it.py::test_leaks: leaked 4.0 MiB on fake:0 (threshold 1.0 MiB)",
        "LEAK test_it.py::test_xfails: leaked 16.0 MiB on fake:0 (threshold 1.0 MiB)",
        "given back: 4.0 MiB in 3 cleanups",
    ]


@pytest.mark.usefixtures("needs_xdist")
@pytest.mark.parametrize("workers", WORKERS, ids=["none", "n0", "n2"])
def test_a_marker_alone_tells_also_with_workers(suite, workers):
    suite.write("""
        @pytest.mark.gpu_leak(threshold="1MiB")
        def test_marked():
            KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run_apart(*workers)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["LEAK test_it.py::test_marked: leaked 4.0 MiB*"])


@pytest.mark.usefixtures("needs_xdist")
@pytest.mark.parametrize("workers", WORKERS, ids=["none", "n0", "n2"])
def test_a_warning_crosses_to_the_controller(suite, workers):
    suite.write("""
        def test_leaks():
            KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run_apart("--gpu-leak=warn", *workers)
    result.assert_outcomes(passed=1, warnings=1)


@pytest.mark.usefixtures("needs_xdist")
@pytest.mark.parametrize("workers", WORKERS, ids=["none", "n0", "n2"])
def test_a_marker_that_does_not_parse_is_refused_with_workers_too(suite, workers):
    suite.write("""
        @pytest.mark.gpu_clean("fast")
        def test_it():
            print("RAN")
    """)
    result = suite.run_apart("-s", *workers)
    assert result.ret not in (0, pytest.ExitCode.TESTS_FAILED)
    assert "'fast' is not one of quick, comprehensive" in result.stdout.str() + result.stderr.str()
    assert "RAN" not in result.stdout.str()


@pytest.mark.usefixtures("needs_xdist")
def test_a_worker_that_crashes_does_not_take_the_summary_with_it(suite):
    suite.write("""
        import os

        def test_leaks():
            KEPT.append(allocate(4 * MiB))

        def test_crashes():
            os._exit(1)
    """)
    result = suite.run_apart("--gpu-leak=fail", "-p", "xdist", "-n1")
    result.stdout.fnmatch_lines(["LEAK test_it.py::test_leaks: leaked 4.0 MiB*"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


# -- runs that run nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["--collect-only", "--setup-plan", "--fixtures-per-test", "--version"])
def test_a_run_that_runs_no_test_says_nothing_of_memory(suite, argument):
    suite.write("""
        @pytest.fixture(scope="module")
        def model():
            KEPT.append(allocate(4 * MiB))

        @pytest.mark.gpu_clean("quick")
        def test_it(model):
            KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run("--gpu-leak=fail", argument)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("LEAK *")
    result.stdout.no_fnmatch_line("TROUBLE *")


def test_setups_alone_are_judged(suite):
    suite.write("""
        @pytest.fixture
        def buffer():
            KEPT.append(allocate(4 * MiB))

        def test_it(buffer):
            pass
    """)
    result = suite.run("--gpu-leak=fail", "--setup-only")
    result.stdout.fnmatch_lines(["LEAK test_it.py::test_it: leaked 4.0 MiB*"])


def test_a_run_without_any_test_is_as_it_was(suite):
    suite.write("")
    assert suite.run("--gpu-leak=fail").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_an_error_at_collection_is_as_it_was(suite):
    suite.write("raise OSError('its own reason')")
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E*OSError: its own reason"])


def test_tests_in_random_order_are_judged_alike(suite):
    pytest.importorskip("pytest_randomly")
    suite.write("""
        @pytest.mark.parametrize("number", range(6))
        def test_it(number):
            if number % 2:
                KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run_apart("--gpu-leak=fail", "-p", "pytest_randomly")
    result.assert_outcomes(passed=6, errors=3)


# -- off --------------------------------------------------------------------------------------------------------------

EVERYTHING = """
    import unittest
    import warnings

    @pytest.fixture(scope="module")
    def model():
        yield 1

    def test_passes(model):
        pass

    def test_fails(model):
        local = [1, 2]
        assert local == [1, 3]

    @pytest.mark.skip(reason="later")
    def test_skipped():
        pass

    @pytest.mark.xfail
    def test_xfails():
        assert 0

    @pytest.mark.parametrize("number", [1, 2])
    def test_param(number):
        warnings.warn("a warning of its own")

    class TestCase(unittest.TestCase):
        def test_it(self):
            self.fail("own reason")

    @pytest.fixture
    def broken():
        yield
        raise OSError("at teardown")

    def test_teardown_fails(broken):
        pass
"""


def outcome_of(result):
    lines = [line for line in result.outlines if not line.startswith("plugins:")]
    return [re.sub(r"\d+\.\d+s", "0s", line).strip("=") for line in lines], result.ret


@pytest.mark.parametrize(
    "arguments", [[], ["-v"], ["-q", "-ra"], ["-l"], ["--tb=short"], ["--durations=0", "-vv"]], ids=" ".join
)
def test_installed_and_off_says_what_a_run_without_it_says_to_the_letter(suite, monkeypatch, arguments):
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")
    suite.pytester.makeconftest("")
    suite.write(EVERYTHING, header="import pytest")
    without = suite.run_apart(*arguments, "-p", "no:gpuclean", settle=True)
    off = suite.run_apart(*arguments, "-p", "gpuclean", settle=True)
    if "--durations=0" in arguments:
        strip = re.compile(r"^\d+\.\d+s (call|setup|teardown)")
        without.outlines[:] = sorted(line for line in without.outlines if not strip.match(line))
        off.outlines[:] = sorted(line for line in off.outlines if not strip.match(line))
    assert outcome_of(off) == outcome_of(without)


@pytest.mark.parametrize("arguments", [[], ["--gpu-clean=off"]], ids=["nothing said", "off"])
def test_installed_and_off_registers_nothing_that_runs_per_test(suite, arguments):
    suite.write(
        """
        import sys

        def test_it(pytestconfig):
            names = [name for name, plugin in pytestconfig.pluginmanager.list_name_plugin() if "gpuclean" in name]
            assert names == ["gpuclean"]
            ours = pytestconfig.pluginmanager.get_plugin("gpuclean")
            kinds = ("pytest_runtest", "pytest_fixture", "pytest_pyfunc")
            per_test = [name for name in vars(ours) if name.startswith(kinds)]
            assert per_test == []
            loaded = {name for name in sys.modules if name.startswith("pytest_gpuclean.")}
            assert not {name for name in loaded if name.endswith((".engine", ".memory", ".hooks"))}
            assert "psutil" not in sys.modules
    """,
        header="import pytest",
    )
    suite.pytester.makeconftest("")
    suite.run_apart(*arguments, settle=True).assert_outcomes(passed=1)


def test_without_xdist_everything_works(suite):
    suite.write("""
        def test_leaks():
            KEPT.append(allocate(4 * MiB))
    """)
    suite.run("--gpu-leak=fail", "-p", "no:xdist").assert_outcomes(passed=1, errors=1)
