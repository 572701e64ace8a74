"""pytest-timeout, by signal and by thread: it ends what hangs, and the plugin's own work is not the test's time."""

import re

import pytest

from .street import LEAKED, MIXED, in_full

pytest.importorskip("pytest_timeout")

TIMEOUT = ("-p", "timeout")
METHODS = pytest.mark.parametrize("method", ["signal", "thread"])
NEARLY_OUT_OF_TIME = """
    import time

    def test_leaks():
        KEPT.append(allocate(4 * MiB))
        time.sleep(0.5)

    def test_next():
        pass
"""
SLOW_TO_CLEAN = """
    import time

    class Slow:
        name = "slow"

        def clean(self, occasion):
            time.sleep(1.5)
            return "slept"

    @pytest.hookimpl(optionalhook=True)
    def pytest_gpuclean_cleaners(config):
        return [Slow()]
"""


@in_full
@METHODS
def test_outcomes(street, method):
    street.write(MIXED)
    street.both(*TIMEOUT, "--timeout=60", f"--timeout-method={method}", apart=True)


def test_a_test_that_hangs_is_ended_and_the_others_are_judged(street):
    street.write("""
        import time

        def test_hangs():
            buffer = allocate(16 * MiB)
            time.sleep(60)

        def test_hangs_and_leaks():
            KEPT.append(allocate(4 * MiB))
            time.sleep(60)

        def test_clean():
            pass
    """)
    beside, alone = street.both(*TIMEOUT, "--timeout=0.5", "--timeout-method=signal", apart=True)
    for seen in (beside, alone):
        found = [report.test for report in seen.reports if "Timeout (>0.5s)" in report.text]
        assert found == ["test_it.py::test_hangs", "test_it.py::test_hangs_and_leaks"]
    beside.result.assert_outcomes(failed=2, passed=1, errors=1)


@in_full
def test_a_thread_ends_the_run_of_a_test_that_hangs(street):
    street.write("""
        import time

        def test_leaks():
            KEPT.append(allocate(4 * MiB))

        def test_hangs():
            time.sleep(60)
    """)
    arguments = *TIMEOUT, "--timeout=0.5", "--timeout-method=thread"
    beside, alone = street.beside(*arguments, apart=True), street.alone(*arguments, apart=True)
    for seen in (beside, alone):
        assert seen.result.ret == 1
        assert seen.order == ["test_it.py::test_leaks"]
        assert re.search(r"\+ Timeout \+", seen.text)
    assert beside.leaky == {"test_it.py::test_leaks": 1}


@METHODS
def test_cleaning_is_not_the_tests_time(street, method):
    street.write(NEARLY_OUT_OF_TIME)
    street.conftest(SLOW_TO_CLEAN)
    seen = street.beside(*TIMEOUT, "--timeout=1.2", f"--timeout-method={method}", "-v", apart=True)
    seen.result.assert_outcomes(passed=2, errors=1)
    assert seen.leaky == {"test_it.py::test_leaks": 1}
    assert "slow: slept" in seen.text


@in_full
@METHODS
def test_cleaning_at_the_end_of_a_wider_fixture_is_not_the_tests_time(street, method):
    street.write("""
        import time

        @pytest.fixture(scope="class")
        def model():
            yield
            time.sleep(0.3)

        class TestIt:
            def test_it(self, model):
                node = [allocate(4 * MiB)]
                node.append(node)
                time.sleep(0.3)

        def test_next():
            pass
    """)
    street.conftest(SLOW_TO_CLEAN)
    seen = street.beside(*TIMEOUT, "--timeout=1.2", f"--timeout-method={method}", apart=True)
    seen.result.assert_outcomes(passed=2)


@in_full
@METHODS
def test_what_is_left_of_the_time_runs_on_after_a_cleanup(street, method):
    street.write("""
        import time

        @pytest.fixture(scope="class")
        def model():
            yield
            time.sleep(60)

        class TestIt:
            def test_it(self, model):
                pass

        def test_next():
            pass
    """)
    street.conftest(SLOW_TO_CLEAN)
    seen = street.beside(*TIMEOUT, "--timeout=1", f"--timeout-method={method}", apart=True)
    assert seen.result.duration < 30
    if method == "signal":
        seen.result.assert_outcomes(passed=2, errors=1)
        assert "Timeout (>1.0s)" in seen.text
    else:
        assert re.search(r"\+ Timeout \+", seen.text)


@in_full
@METHODS
@pytest.mark.parametrize("func_only", ["true", "false"])
def test_the_run_that_confirms_a_leak_has_a_timeout_of_its_own(street, method, func_only):
    street.write("""
        import time

        def test_kept_once():
            time.sleep(0.4)
            if not KEPT:
                KEPT.append(allocate(4 * MiB))
    """)
    street.ini(f"timeout_func_only = {func_only}")
    arguments = *TIMEOUT, "--timeout=0.9", f"--timeout-method={method}", "--gpu-leak-confirm=1"
    seen = street.beside(*arguments, apart=True)
    seen.result.assert_outcomes(passed=1)
    seen.result.stdout.fnmatch_lines(["KEPT test_it.py::test_kept_once: *"])


@in_full
@pytest.mark.parametrize("func_only", ["true", "false"])
def test_a_run_that_confirms_a_leak_and_hangs_is_ended(street, func_only):
    street.write("""
        import time

        def test_hangs_and_leaks():
            KEPT.append(allocate(4 * MiB))
            time.sleep(60)
    """)
    street.ini(f"timeout_func_only = {func_only}")
    seen = street.beside(*TIMEOUT, "--timeout=0.5", "--timeout-method=signal", "--gpu-leak-confirm=1", apart=True)
    seen.result.assert_outcomes(failed=1, errors=1)
    assert seen.result.duration < 30
    assert [report.text.startswith(LEAKED) for report in seen.reports] == [False, False, True]


@in_full
@METHODS
def test_a_test_that_runs_again_because_memory_ran_out_has_its_time_anew(street, method):
    street.write("""
        import time

        RUNS = []

        def test_it():
            RUNS.append(1)
            time.sleep(0.7)
            if len(RUNS) == 1:
                allocate(2048 * MiB)
    """)
    street.conftest(SLOW_TO_CLEAN)
    arguments = *TIMEOUT, "--timeout=1.2", f"--timeout-method={method}", "--gpu-oom-retry=1"
    seen = street.beside(*arguments, apart=True)
    seen.result.assert_outcomes(passed=1)
    assert "OOM test_it.py::test_it" in seen.text
