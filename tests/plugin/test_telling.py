"""What a run says: the header, the stages under -v, warnings, the summary, and nothing where there is nothing."""

import pytest

LEAKS = """
    def test_leaks():
        KEPT.append(allocate(4 * MiB))
"""
CLEAN = """
    def test_clean():
        pass
"""


def summary(result):
    """Give the lines of the summary."""
    lines = iter(result.outlines)
    for line in lines:
        if line.strip("= ") == "gpuclean" and line.startswith("="):
            break
    found = []
    for line in lines:
        if line.startswith("==="):
            break
        found.append(line)
    return found


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--gpu-clean=quick"], ["quick cleaning after each test", "leaks over 1.0 MiB fail", "watching devices"]),
        (["--gpu-clean=comprehensive", "--gpu-clean-every=module"], ["comprehensive cleaning after each module"]),
        (["--gpu-clean=quick", "--gpu-clean-every=param"], ["quick cleaning after each parametrized run"]),
        (["--gpu-leak=warn", "--gpu-leak-threshold=8MiB"], ["leaks over 8.0 MiB warn"]),
        (["--gpu-leak=report"], ["leaks over 1.0 MiB are reported"]),
        (["--gpu-leak=fail", "--gpu-leak-watch=host"], ["watching host memory"]),
        (["--gpu-peak-limit=1GiB"], ["peaks over 1.0 GiB fail"]),
    ],
)
def test_the_header_says_what_the_run_does(suite, arguments, parts):
    suite.write(CLEAN)
    (line,) = [line for line in suite.run(*arguments).outlines if line.startswith("gpuclean: ")]
    for part in parts:
        assert part in line


def test_the_header_names_the_devices_in_use(suite):
    suite.write(CLEAN)
    suite.run("--gpu-leak=fail").stdout.fnmatch_lines(["gpuclean: *fake:0*"])


@pytest.mark.parametrize("arguments", [[], ["--gpu-clean=off"]])
def test_a_run_that_is_off_has_no_header(suite, arguments):
    suite.write(CLEAN)
    suite.run(*arguments).stdout.no_fnmatch_line("gpuclean: *")


def test_quiet_runs_have_no_header(suite):
    suite.write(CLEAN)
    suite.run("--gpu-leak=fail", "-q").stdout.no_fnmatch_line("gpuclean: *")


@pytest.mark.parametrize("arguments", [["--gpu-leak=fail"], ["--gpu-clean=quick"], ["--gpu-clean=comprehensive"]])
def test_a_run_with_nothing_to_say_has_no_summary(suite, arguments):
    suite.write(CLEAN)
    result = suite.run(*arguments)
    assert not [line for line in result.outlines if line.strip("= ") == "gpuclean"]


def test_the_summary_names_each_leak_and_the_cost(suite):
    suite.write(LEAKS)
    result = suite.run("--gpu-leak=fail")
    lines = summary(result)
    assert lines[0] == "LEAK test_it.py::test_leaks: leaked 4.0 MiB on fake:0 (threshold 1.0 MiB)"
    assert lines[-1].startswith("cost: ")


def test_the_short_summary_shows_the_fact(suite):
    suite.write(LEAKS)
    result = suite.run("--gpu-leak=fail", "-ra")
    result.stdout.fnmatch_lines(["ERROR test_it.py::test_leaks - *gpuclean: leaked 4.0*"])


def test_verbose_runs_tell_each_stage(suite):
    suite.write("""
        def test_it():
            node = [allocate(4 * MiB)]
            node.append(node)
    """)
    result = suite.run("--gpu-clean=comprehensive", "-v")
    result.stdout.fnmatch_lines(["test_it.py::test_it PASSED*", "*gpuclean comprehensive cleanup: *fake:0 *in *s"])
    suite.run("--gpu-clean=comprehensive").stdout.no_fnmatch_line("*gpuclean comprehensive cleanup*")


def test_what_was_given_back_is_told(suite):
    suite.write("""
        def test_it():
            node = [allocate(4 * MiB)]
            node.append(node)
    """)
    result = suite.run("--gpu-clean=quick")
    assert any(line.startswith("given back: 4.0 MiB") for line in summary(result))


# -- modes ------------------------------------------------------------------------------------------------------------


def test_warn_gives_one_warning_a_leak_and_fails_nothing(suite):
    suite.write("""
        def test_first():
            KEPT.append(allocate(4 * MiB, device=0))
            KEPT.append(allocate(4 * MiB, device=1))

        def test_second():
            KEPT.append(allocate(8 * MiB))

        def test_clean():
            pass
    """)
    result = suite.run_apart("--gpu-leak=warn")
    result.assert_outcomes(passed=3, warnings=3)
    result.stdout.fnmatch_lines(["*GpuCleanWarning: gpuclean: leaked 8.0 MiB on fake:0 (threshold 1.0 MiB)"])
    assert result.ret == 0


def test_a_warning_is_an_error_under_w_error(suite):
    suite.write(LEAKS)
    result = suite.run("--gpu-leak=warn", "-W", "error::pytest_gpuclean.GpuCleanWarning")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*gpuclean: leaked 4.0 MiB on fake:0*"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


@pytest.mark.parametrize("arguments", [["--gpu-leak=fail"], ["--gpu-clean=comprehensive"], ["--gpu-leak=report"]])
def test_a_run_under_w_error_warns_of_nothing(suite, arguments):
    suite.write(CLEAN)
    result = suite.run_apart(*arguments, "-W", "error")
    result.assert_outcomes(passed=1)


def test_a_leak_under_w_error_in_fail_mode_is_the_same_error(suite):
    suite.write(LEAKS)
    suite.run_apart("--gpu-leak=fail", "-W", "error").assert_outcomes(passed=1, errors=1)


def test_report_changes_no_outcome_and_tells_in_the_summary(suite):
    suite.write("""
        @pytest.fixture(scope="module")
        def model():
            KEPT.append(allocate(64 * MiB))

        def test_leaks(model):
            KEPT.append(allocate(4 * MiB))

        def test_fails():
            assert 0

        @pytest.mark.xfail
        def test_xfails():
            KEPT.append(allocate(4 * MiB))
            assert 0
    """)
    result = suite.run("--gpu-leak=report")
    result.assert_outcomes(passed=1, failed=1, xfailed=1)
    lines = "\n".join(summary(result))
    assert "LEAK test_it.py::test_leaks: leaked 4.0 MiB" in lines
    assert "LEAK test_it.py::test_xfails: leaked 4.0 MiB" in lines
    assert "fixture 'model' (module scope) leaked 64.0 MiB" in lines


def test_off_does_not_judge_and_cleaning_goes_on(suite):
    suite.write(LEAKS)
    result = suite.run("--gpu-clean=quick", "--gpu-leak=off", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*gpuclean quick cleanup*"])
    result.stdout.no_fnmatch_line("LEAK *")


def test_a_leak_of_host_memory_that_auto_chose_is_a_warning(suite):
    pytest.importorskip("numpy")
    suite.pytester.makeconftest("")
    suite.write(
        """
        import numpy

        KEPT = []

        def test_leaks():
            KEPT.append(numpy.ones(8 * 2**20, dtype=numpy.uint8))
    """,
        header="",
    )
    result = suite.run_apart("--gpu-clean=quick")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*GpuCleanWarning: gpuclean: leaked 8.0 MiB on cpu*"])
    suite.run_apart("--gpu-clean=quick", "--gpu-leak=fail").assert_outcomes(passed=1, errors=1)


def test_junit_xml_has_the_leak_as_an_error(suite):
    suite.write(LEAKS)
    suite.run("--gpu-leak=fail", "--junitxml=out.xml")
    text = (suite.pytester.path / "out.xml").read_text()
    assert 'errors="1"' in text
    assert "leaked 4.0 MiB on fake:0" in text
