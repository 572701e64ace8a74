"""A test that ran out of memory: its report says who held it, and it may run again."""

import re
import xml.etree.ElementTree as ET

import pytest

WORKERS = [[], ["-p", "xdist", "-n0"], ["-p", "xdist", "-n2"]]
GATE = "--gpu-leak=fail"
RETRY = "--gpu-oom-retry=1"

VICTIM = """
    fakegpu.CAPACITY[0] = 100 * MiB

    @pytest.fixture(scope="module")
    def model():
        return allocate(20 * MiB)

    def test_leaks(model):
        KEPT.append(allocate(60 * MiB))

    def test_victim(model):
        mine = allocate(8 * MiB)
        more = allocate(30 * MiB)
"""
FITS_ALONE = """
    fakegpu.CAPACITY[0] = 100 * MiB
    RUNS = []

    def test_it():
        RUNS.append(1)
        print("RUN", len(RUNS))
        first = allocate(60 * MiB)
        second = allocate(60 * MiB if len(RUNS) == 1 else 30 * MiB)
"""
NEVER_FITS = """
    fakegpu.CAPACITY[0] = 100 * MiB

    def test_it():
        print("RUN")
        first = allocate(60 * MiB)
        second = allocate(60 * MiB)
"""
RETRIED = "OOM test_it.py::test_it: out of memory on fake:0, asked for 60.0 MiB; retried after running out of memory: "


def runs_of(result):
    """How often `print("RUN")` was reached; the source in a traceback does not count."""
    return len(re.findall(r'(?<!")RUN(?!S)', result.stdout.str()))


# -- the victim's report ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [*WORKERS[:2], ["-p", "xdist", "-n1"]])
def test_the_report_names_who_held_the_memory(suite, workers):
    if workers:
        pytest.importorskip("xdist")
    suite.write(VICTIM)
    result = suite.run_apart(GATE, *workers)
    result.assert_outcomes(passed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "gpuclean: ran out of memory on fake:0: asked for 30.0 MiB",
            "  this process held 88.0 MiB on fake:0, as fake says",
            "    20.0 MiB by live fixtures: 'model' (module scope)",
            "    60.0 MiB leaked before it, as far as it was not freed since: test_it.py::test_leaks",
            "    8.0 MiB since this test began: its own",
            "  free what test_it.py::test_leaks leaked*",
            "OOM test_it.py::test_victim: out of memory on fake:0, asked for 30.0 MiB",
        ]
    )


def test_a_fixture_that_does_not_fit_is_told_at_its_setup(suite):
    suite.write("""
        @pytest.fixture(scope="module")
        def model():
            return allocate(2048 * MiB)

        def test_it(model):
            pass
    """)
    result = suite.run(GATE)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["gpuclean: ran out of memory on fake:0: asked for 2.0 GiB", "OOM test_it.py::test_it:*"]
    )


@pytest.mark.parametrize(
    "body",
    [
        'assert "out of memory" in "CUDA error"',
        'with pytest.raises(RuntimeError, match="elsewhere"):\n            allocate(2048 * MiB)',
        'raise type("MyError", (RuntimeError,), {})("CUDA out of memory")',
    ],
)
def test_what_is_about_such_an_error_is_no_victim(suite, body):
    suite.write(f"""
    def test_it():
        {body}
    """)
    result = suite.run(GATE, RETRY)
    result.assert_outcomes(failed=1)
    assert "ran out of memory" not in result.stdout.str()
    assert "OOM" not in result.stdout.str()


def test_a_test_that_may_fail_stays_xfailed(suite):
    suite.write("""
        @pytest.mark.xfail
        def test_it():
            print("RUN")
            allocate(2048 * MiB)
    """)
    result = suite.run(GATE, RETRY, "-s")
    result.assert_outcomes(xfailed=1)
    assert runs_of(result) == 1


def test_a_test_that_nothing_concerns_gets_no_section(suite):
    suite.write("""
        @pytest.mark.gpu_clean("quick")
        def test_marked():
            pass

        def test_it():
            allocate(2048 * MiB)
    """)
    assert "ran out of memory" in suite.run(GATE).stdout.str()
    assert "this process held" in suite.run(GATE).stdout.str()


def test_off_means_off(suite):
    suite.write(NEVER_FITS)
    result = suite.run("--gpu-clean=off", RETRY, "-s")
    result.assert_outcomes(failed=1)
    assert runs_of(result) == 1
    assert "ran out of memory" not in result.stdout.str()


# -- running again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("gate", [[], [GATE]], ids=["alone", "with-gate"])
def test_a_victim_runs_again_without_what_its_first_run_held(suite, workers, gate):
    if workers:
        pytest.importorskip("xdist")
    suite.write(FITS_ALONE)
    result = suite.run_apart(*gate, RETRY, *workers, "--junitxml=it.xml", "-rA")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["gpuclean: ran out of memory on fake:0*", RETRIED + "passed"])
    assert "RUN 1" in result.stdout.str()
    assert "RUN 2" in result.stdout.str()
    assert len(list(ET.parse(suite.pytester.path / "it.xml").iter("testcase"))) == 1


def test_alone_it_turns_no_gate_on(suite):
    suite.write("def test_it():\n    KEPT.append(allocate(4 * MiB))\n")
    suite.run(RETRY).assert_outcomes(passed=1)


@pytest.mark.parametrize(("times", "runs"), [(0, 1), (1, 2), (3, 4)])
def test_it_runs_as_often_as_said(suite, times, runs):
    suite.write(NEVER_FITS)
    result = suite.run(GATE, f"--gpu-oom-retry={times}", "-s")
    result.assert_outcomes(failed=1)
    assert runs_of(result) == runs
    said = {0: "", 1: "; retried after running out of memory: failed"}.get(
        times, "; retried 3 times after running out of memory: failed"
    )
    result.stdout.fnmatch_lines([f"OOM test_it.py::test_it: out of memory on fake:0, asked for 60.0 MiB{said}"])
    assert result.stdout.str().count("gpuclean: ran out of memory") == 1


def test_it_stops_as_soon_as_it_fits(suite):
    suite.write(FITS_ALONE)
    result = suite.run(GATE, "--gpu-oom-retry=5", "-s")
    result.assert_outcomes(passed=1)
    assert runs_of(result) == 2


def test_the_first_run_has_gone_before_the_second_begins(suite):
    suite.write("""
        fakegpu.CAPACITY[0] = 100 * MiB
        IN_USE = []

        class Holder:
            pass

        class TestIt:
            def test_it(self):
                IN_USE.append(fakegpu.IN_USE[0])
                self.mine = allocate(20 * MiB)
                circle = Holder()
                circle.itself, circle.memory = circle, allocate(20 * MiB)
                local = allocate(20 * MiB)
                if len(IN_USE) == 1:
                    try:
                        allocate(60 * MiB)
                    except RuntimeError as error:
                        raise RuntimeError("the batch does not fit") from error

        def test_after():
            assert IN_USE == [0, 0]
    """)
    suite.run(RETRY).assert_outcomes(passed=2)


def test_a_step_of_the_cleaning_before_it_that_fails_is_told(suite):
    suite.conftest("""
        class Pool:
            name = "pool"
            def clean(self, occasion):
                raise OSError("it is closed")

        @pytest.hookimpl
        def pytest_gpuclean_cleaners(config):
            return [Pool()]
    """)
    suite.write(FITS_ALONE)
    result = suite.run_apart(GATE, RETRY)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["TROUBLE *: pool failed: OSError: it is closed", f"{RETRIED}passed"])


def test_function_fixtures_come_up_anew_and_wider_ones_stay(suite):
    suite.write("""
        fakegpu.CAPACITY[0] = 100 * MiB
        SEEN = []

        @pytest.fixture(scope="module")
        def model():
            SEEN.append("model up")
            yield allocate(20 * MiB)
            SEEN.append("model down")

        @pytest.fixture
        def batch(model, request):
            SEEN.append("batch up")
            yield allocate(20 * MiB)
            SEEN.append("batch down")

        @pytest.mark.parametrize("size", [30])
        def test_it(batch, size, request):
            assert request.getfixturevalue("batch") is batch
            SEEN.append("run")
            allocate((80 if SEEN.count("run") == 1 else size) * MiB)

        def test_last():
            assert SEEN == ["model up", "batch up", "run", "batch down", "batch up", "run", "batch down"]
    """)
    suite.run(GATE, RETRY).assert_outcomes(passed=2)


@pytest.mark.parametrize("scope", ["function", "class", "module", "session"])
def test_a_fixture_that_did_not_fit_comes_up_anew(suite, scope):
    suite.write(f"""
        fakegpu.CAPACITY[0] = 100 * MiB
        UPS = []

        @pytest.fixture(scope="{scope}")
        def model():
            UPS.append(1)
            first = allocate(60 * MiB)
            yield allocate(60 * MiB if len(UPS) == 1 else 30 * MiB)

        def test_it(model):
            assert model.size_bytes == 30 * MiB

        def test_next(model):
            assert len(UPS) == {3 if scope in ("function", "class") else 2}
    """)
    result = suite.run(GATE, RETRY)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([RETRIED + "passed"])


def test_what_a_run_raises_then_counts(suite):
    suite.write("""
        fakegpu.CAPACITY[0] = 100 * MiB
        RUNS = []

        def run():
            RUNS.append(1)
            if len(RUNS) % 2:
                allocate(200 * MiB)

        def test_fails():
            run()
            assert "this" == "that"

        def test_skips():
            run()
            pytest.skip("not here")

        @pytest.mark.xfail(raises=ValueError, strict=True)
        def test_xfails():
            run()
            raise ValueError

        @pytest.fixture
        def fragile():
            if len(RUNS) % 2:
                raise ValueError("fragile")

        def test_cannot_come_up_again(fragile):
            run()
    """)
    result = suite.run(GATE, RETRY)
    result.assert_outcomes(failed=1, skipped=1, xfailed=1, errors=1)
    result.stdout.fnmatch_lines(["E*ValueError: fragile"])
    result.stdout.fnmatch_lines(["E*assert 'this' == 'that'"])
    for test, outcome in (("fails", "failed"), ("skips", "skipped"), ("cannot_come_up_again", "failed")):
        result.stdout.fnmatch_lines([f"OOM *test_{test}: *; retried after running out of memory: {outcome}"])


def test_a_leak_of_the_run_that_failed_stays_a_leak(suite):
    suite.write("""
        fakegpu.CAPACITY[0] = 100 * MiB

        def test_it():
            if not KEPT:
                KEPT.append(allocate(8 * MiB))
                allocate(200 * MiB)
    """)
    result = suite.run(GATE, RETRY)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: leaked 8.0 MiB on fake:0*", "*in attempt 1*"])


def test_a_teardown_that_fails_on_the_way_is_told(suite):
    suite.write("""
        fakegpu.CAPACITY[0] = 100 * MiB
        RUNS = []

        @pytest.fixture
        def batch():
            yield
            if len(RUNS) == 1:
                raise ValueError("cannot go down")

        def test_it(batch):
            RUNS.append(1)
            if len(RUNS) == 1:
                allocate(200 * MiB)
    """)
    result = suite.run(GATE, RETRY, "-rP")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*the teardown before that failed: *ValueError: cannot go down*"])


SET_UP_OF_CLASS = """
            @classmethod
            def setUpClass(cls):
                cls.model = allocate(20 * MiB)

            @classmethod
            def tearDownClass(cls):
                del cls.model
"""


@pytest.mark.parametrize("more", ["", SET_UP_OF_CLASS], ids=["plain", "setUpClass"])
def test_a_unittest_case_runs_again(suite, more):
    suite.write(f"""
        import unittest

        fakegpu.CAPACITY[0] = 100 * MiB
        RUNS = []

        class TestCase(unittest.TestCase):
{more}
            def setUp(self):
                self.batch = allocate(20 * MiB)

            def test_it(self):
                RUNS.append(1)
                self.more = allocate(20 * MiB)
                allocate(80 * MiB if len(RUNS) == 1 else 40 * MiB)

            def test_other(self):
                pass
    """)
    result = suite.run_apart(GATE, RETRY)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["OOM *test_it: *; retried after running out of memory: passed"])


def test_a_doctest_runs_again(suite):
    suite.pytester.makepyfile(
        example='''
        import fakegpu

        def run():
            """Do it.

            >>> buffer = run()
            """
            RUNS.append(1)
            return fakegpu.allocate((2048 if len(RUNS) == 1 else 1) * fakegpu.MiB)

        RUNS = []
        '''
    )
    result = suite.run(RETRY, "--doctest-modules", "example.py")
    result.assert_outcomes(passed=1)


def test_the_run_is_not_ended_by_a_failure_that_did_not_last(suite):
    suite.write(FITS_ALONE + "\n    def test_next():\n        pass\n")
    suite.run(GATE, RETRY, "-x").assert_outcomes(passed=2)


def test_an_interrupt_in_the_second_run_ends_the_session(suite):
    suite.write("""
        RUNS = []

        def test_it():
            RUNS.append(1)
            if len(RUNS) == 2:
                raise KeyboardInterrupt
            allocate(2048 * MiB)
    """)
    result = suite.run_apart(GATE, RETRY)
    assert result.ret == pytest.ExitCode.INTERRUPTED


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="before, a subtest's failure is its test's")
def test_a_subtest_s_failure_is_told_and_not_run_again(suite):
    suite.write("""
        import unittest

        class TestCase(unittest.TestCase):
            def test_it(self):
                print("RUN")
                with self.subTest("first"):
                    allocate(2048 * MiB)
    """)
    result = suite.run_apart(GATE, RETRY, "-s")
    assert runs_of(result) == 1
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_memory_is_cleaned_between_the_runs(suite):
    suite.conftest("""
        from fakegpu import CLEANER

        def pytest_gpuclean_cleaners(config):
            return [CLEANER]
    """)
    suite.write("""
        LEVELS = []

        def test_it():
            LEVELS.append([occasion.level for _, occasion in fakegpu.CLEANER.calls])
            if len(LEVELS) == 1:
                allocate(2048 * MiB)
            assert LEVELS == [[], ["comprehensive"]]
    """)
    suite.run(RETRY).assert_outcomes(passed=1)


# -- beside others that run tests again -------------------------------------------------------------------------------


def test_rerunfailures_comes_after(suite):
    pytest.importorskip("pytest_rerunfailures")
    suite.write("""
        fakegpu.CAPACITY[0] = 100 * MiB
        SEEN = []

        @pytest.fixture(scope="session")
        def model():
            SEEN.append("up")
            yield
            print("MODEL DOWN")

        def test_it(model):
            SEEN.append("run")
            if SEEN.count("run") < 4:
                allocate(200 * MiB)

        def test_fits_at_once(model):
            SEEN.append("other")
            if SEEN.count("other") == 1:
                allocate(200 * MiB)
    """)
    result = suite.run_apart(GATE, RETRY, "-p", "rerunfailures", "--reruns=1", "-s")
    result.assert_outcomes(passed=2)
    assert result.parseoutcomes() == {"passed": 2, "rerun": 1}
    result.stdout.fnmatch_lines(["OOM *test_it: *; retried after running out of memory: passed"])
    result.stdout.fnmatch_lines(["OOM *test_fits_at_once: *; retried after running out of memory: passed"])
    assert result.stdout.str().count("OOM ") == 2
    assert result.stdout.str().count("MODEL DOWN") == 1


def test_what_others_keep_of_the_first_run_holds_no_memory(suite):
    suite.conftest("""
        KEPT = []

        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_makereport(item, call):
            yield
            KEPT.append(call.excinfo)
    """)
    suite.write("""
        fakegpu.CAPACITY[0] = 100 * MiB
        UPS = []

        @pytest.fixture
        def batch():
            UPS.append(1)
            first = allocate(60 * MiB)
            return allocate(60 * MiB if len(UPS) == 1 else 30 * MiB)

        def test_it(batch):
            pass
    """)
    suite.run_apart(RETRY).assert_outcomes(passed=1)


def test_a_victim_that_rerunfailures_brings_through_is_no_victim_in_the_end(suite):
    pytest.importorskip("pytest_rerunfailures")
    suite.write("""
        RUNS = []

        def test_it():
            RUNS.append(1)
            if len(RUNS) < 3:
                allocate(2048 * MiB)
    """)
    result = suite.run_apart(RETRY, "-p", "rerunfailures", "--reruns=1")
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}
    assert "OOM test_it" not in result.stdout.str()


def test_flaky_comes_after(suite):
    pytest.importorskip("flaky")
    suite.write("""
        RUNS = []

        @pytest.mark.flaky(max_runs=2)
        def test_it():
            RUNS.append(1)
            print("RUN")
            if len(RUNS) < 4:
                allocate(2048 * MiB)

        @pytest.mark.flaky(max_runs=3)
        def test_fits_at_once():
            RUNS.append(1)
            print("RUN")
            if len(RUNS) == 5:
                allocate(2048 * MiB)
    """)
    result = suite.run_apart(GATE, RETRY, "-p", "flaky", "-s")
    result.assert_outcomes(passed=2)
    assert runs_of(result) == 6


def test_a_forked_test_runs_again_in_its_own_process(suite):
    pytest.importorskip("pytest_forked")
    suite.write("def test_it():\n    pass\n")
    if suite.run_apart("-p", "pytest_forked", "--forked").ret != 0:
        pytest.skip("this pytest-forked does not work with this pytest")
    suite.write(FITS_ALONE)
    result = suite.run_apart(GATE, RETRY, "-p", "pytest_forked", "--forked")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([RETRIED + "passed"])
