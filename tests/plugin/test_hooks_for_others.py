"""Other plugins bring probes and cleaners, and may excuse leaks; what they get wrong harms no test."""

import pytest

from pytest_gpuclean import plugin
from pytest_gpuclean.plugin import hookspecs

LEAKS = """
    def test_it():
        KEPT.append(allocate(4 * MiB))
"""


def test_a_probe_of_others_is_judged(suite):
    suite.write(LEAKS)
    suite.run("--gpu-leak=fail").assert_outcomes(passed=1, errors=1)


def test_a_cleaner_of_others_runs_before_the_test_is_judged(suite):
    suite.conftest("""
        import sys

        class PoolCleaner:
            name = "pool"

            def clean(self, occasion):
                sys.modules["test_it"].KEPT.clear()
                return "emptied"

        def pytest_gpuclean_cleaners(config):
            return [PoolCleaner()]
    """)
    suite.write(LEAKS)
    result = suite.run("--gpu-clean=quick", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*gpuclean pool: emptied, fake:0 -4.0 MiB*"])


def test_a_cleaner_that_raises_is_told_and_changes_no_outcome(suite):
    suite.conftest("""
        class Broken:
            name = "pool"

            def clean(self, occasion):
                raise OSError("no permission")

        def pytest_gpuclean_cleaners(config):
            return [Broken()]
    """)
    suite.write("def test_it(): pass")
    result = suite.run("--gpu-clean=quick")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["TROUBLE test_it.py::test_it: pool failed: OSError: no permission"])


def test_a_probe_that_raises_is_told_as_not_measured_and_the_others_judge(suite):
    suite.pytester.makepyfile(
        brokenprobe="""
        class Broken:
            source = "npu"

            def read(self):
                raise OSError("driver gone")

            def reset_peak(self):
                raise OSError("driver gone")

        def pytest_gpuclean_probes(config):
            return [Broken()]
        """
    )
    suite.write(LEAKS)
    result = suite.run("--gpu-leak=fail", "-p", "brokenprobe")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*not measured: npu*OSError: driver gone*"])
    result.stdout.fnmatch_lines(["gpuclean: leaked 4.0 MiB on fake:0*"])


@pytest.mark.parametrize("hook", ["pytest_gpuclean_probes", "pytest_gpuclean_cleaners"])
@pytest.mark.parametrize("answer", ["None", "[]", "()"])
def test_an_empty_answer_is_fine(suite, hook, answer):
    suite.pytester.makepyfile(other=f"def {hook}(config):\n    return {answer}\n")
    suite.write("def test_it(): pass")
    result = suite.run("--gpu-leak=fail", "-p", "other")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*TROUBLE*")


@pytest.mark.parametrize("hook", ["pytest_gpuclean_probes", "pytest_gpuclean_cleaners"])
@pytest.mark.parametrize(
    "answer",
    ["[3]", "'text'", "42", "[None]", "[object()]", "(1 / 0)"],
    ids=["int", "text", "42", "none", "object", "raises"],
)
def test_rubbish_is_told_and_left_out_and_the_run_goes_on(suite, hook, answer):
    suite.pytester.makepyfile(other=f"def {hook}(config):\n    return {answer}\n")
    suite.write(LEAKS)
    result = suite.run("--gpu-leak=fail", "-p", "other")
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    assert result.parseoutcomes()["passed"] == 1
    result.stdout.fnmatch_lines(["TROUBLE *"])


@pytest.mark.parametrize("answer", ["[3]", "(1 / 0)"], ids=["int", "raises"])
def test_rubbish_does_not_cost_the_good_probe_its_say(suite, answer):
    suite.pytester.makepyfile(other=f"def pytest_gpuclean_probes(config):\n    return {answer}\n")
    suite.write(LEAKS)
    suite.run("--gpu-leak=fail", "-p", "other").assert_outcomes(passed=1, errors=1)


def test_a_leak_may_be_excused_by_a_hook_with_a_reason(suite):
    suite.conftest("""
        def pytest_gpuclean_leak(item, leak):
            if leak.leaked_bytes == 4 * 2**20 and leak.device == "fake:0":
                return f"known to {item.name}"
    """)
    suite.write("""
        def test_known():
            KEPT.append(allocate(4 * MiB))

        def test_unknown():
            KEPT.append(allocate(5 * MiB))
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["ALLOWED test_it.py::test_known: *", "*known to test_known"])


def test_a_leak_hook_that_raises_is_told_and_the_leak_stands(suite):
    suite.conftest("""
        def pytest_gpuclean_leak(item, leak):
            raise KeyError("oops")
    """)
    suite.write(LEAKS)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["TROUBLE test_it.py::test_it: pytest_gpuclean_leak raised KeyError: 'oops'"])


def test_a_leak_hook_may_not_change_the_leak(suite):
    suite.conftest("""
        def pytest_gpuclean_leak(item, leak):
            leak.leaked_bytes = 0
    """)
    suite.write(LEAKS)
    suite.run("--gpu-leak=fail").assert_outcomes(passed=1, errors=1)


def test_a_family_that_raises_is_told_once_and_the_others_are_asked(suite):
    suite.conftest("""
        class Broken:
            name = "broken"
            first_signal = grace_seconds = tree_at_once = goes_with_parent = None
            left_alone = ""
            until_run_ends = spares_children = False

            def recognizes(self, command):
                raise LookupError("no table")

            def after(self, stopped):
                return ""

        def pytest_gpuclean_process_families(config):
            return [Broken()]
    """)
    suite.write("""
        import subprocess

        @pytest.mark.parametrize("number", range(2))
        def test_it(number):
            subprocess.Popen(["sleep", "30"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    """)
    result = suite.run_apart("--gpu-clean=quick")
    result.assert_outcomes(passed=2)
    text = result.stdout.str()
    assert text.count("the family 'broken' could not look at a process: LookupError: no table") == 1
    assert text.count("STOPPED") == 2


HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("pytest_gpuclean_"))


@pytest.mark.parametrize("arguments", [(), ("--gpu-clean=off",), ("--gpu-clean=quick",)], ids=" ".join)
@pytest.mark.parametrize("hook", HOOKS)
def test_a_conftest_below_may_have_any_hook_whether_or_not_the_plugin_is_on(pytester, hook, arguments):
    for folder in ("first", "second"):  # each is loaded with the collection, not before the run
        pytester.mkpydir(folder)
        (pytester.path / folder / "conftest.py").write_text(f"def {hook}(): return None\n")
        (pytester.path / folder / f"test_{folder}.py").write_text("def test_it(): pass\n")
    pytester.runpytest_inprocess(*arguments).assert_outcomes(passed=2)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_asks_for_what_it_is_not_given_is_refused(pytester, hook):
    pytester.makeconftest(f"def {hook}(weather): return None\n")
    pytester.makepyfile("def test_it(): pass\n")
    result = pytester.runpytest_inprocess()
    result.stderr.fnmatch_lines([f"*{hook}*", "*weather*"])
    assert result.ret != 0


def test_a_hook_of_ours_that_is_not_there_is_refused(pytester):
    pytester.makeconftest("def pytest_gpuclean_weather(): return None\n")
    pytester.makepyfile("def test_it(): pass\n")
    result = pytester.runpytest_inprocess()
    assert "unknown hook 'pytest_gpuclean_weather'" in result.stdout.str() + result.stderr.str()


def test_the_entry_point_looks_for_each_hook():
    assert sorted(plugin._HOOKS) == HOOKS
