"""Known leaks: new and larger ones fail, and the file changes after a whole run that passed, or not at all."""

import json

import pytest

from pytest_gpuclean.plugin.baseline_file import FORMAT, baseline_text, parse_baseline

MiB = 2**20
FILE = "leaks.json"
GATE = f"--gpu-leak-baseline={FILE}"
UPDATE = (GATE, "--gpu-leak-update-baseline")
SUITE = """
    @pytest.fixture(scope="module")
    def model():
        KEPT.append(allocate(64 * MiB))

    def test_a(model):
        KEPT.append(allocate(4 * MiB))

    @pytest.mark.parametrize("x", ["é", "b::c[d]"])
    def test_b(x):
        KEPT.append(allocate(2 * MiB, 1))

    def test_clean():
        pass
"""


@pytest.fixture(
    params=[(), ("-p", "xdist", "-n0"), ("-p", "xdist", "-n2", "--dist=loadfile")], ids=["alone", "n0", "n2"]
)
def ways(request):
    if request.param:
        pytest.importorskip("xdist")
    return request.param


def run(suite, *arguments):
    return suite.run_apart(*arguments) if "-n2" in arguments else suite.run(*arguments)


def leaks(suite):
    text = (suite.pytester.path / FILE).read_text(encoding="utf-8")
    assert text == baseline_text(parse_baseline(text, FILE))
    return {f"{one['where']} {one['device']}": one["leaked_bytes"] for one in json.loads(text)["leaks"]}


def known(suite, size=4 * MiB, where="test_it.py::test_a"):
    one = {"where": where, "kind": "test", "device": "fake:0", "source": "fake", "leaked_bytes": size}
    text = json.dumps({"format": FORMAT, "version": 1, "leaks": [one]})
    (suite.pytester.path / FILE).write_text(text)
    return text


def test_a_suite_that_leaks_passes_once_its_leaks_are_known(suite, ways):
    suite.write(SUITE)
    made = run(suite, *UPDATE, *ways)
    made.assert_outcomes(passed=4)
    assert made.ret == 0
    made.stdout.fnmatch_lines(
        ["known leaks: 4, 72.0 MiB (leaks.json)", "gpuclean: baseline: 4 known leaks, 72.0 MiB, in *"]
    )
    assert leaks(suite) == {
        "test_it.py fake:0": 64 * MiB,
        "test_it.py::test_a fake:0": 4 * MiB,
        "test_it.py::test_b[b::c[d]] fake:1": 2 * MiB,
        "test_it.py::test_b[\\xe9] fake:1": 2 * MiB,
    }
    text = (suite.pytester.path / FILE).read_text()
    result = run(suite, GATE, *ways)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["known leaks: 4, 72.0 MiB (leaks.json)"])
    result.stdout.no_fnmatch_line("*leaks.json: *")
    run(suite, *UPDATE, *ways).assert_outcomes(passed=4)
    assert (suite.pytester.path / FILE).read_text() == text


def test_without_the_file_the_same_suite_fails(suite):
    suite.write(SUITE)
    suite.run("--gpu-leak=fail").assert_outcomes(passed=4, errors=4)


def test_a_new_leak_and_a_larger_one_fail_and_say_why(suite, ways):
    suite.write(SUITE)
    run(suite, *UPDATE, *ways)
    suite.write(SUITE.replace("(4 * MiB", "(5 * MiB").replace("pass", "KEPT.append(allocate(3 * MiB))"))
    result = run(suite, GATE, *ways)
    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines(
        ["gpuclean: leaked 5.0 MiB*", "*leaks.json: it is larger than the 4.0 MiB that are known"]
    )
    result.stdout.fnmatch_lines(["gpuclean: leaked 3.0 MiB*", "*  leaks.json: it is new"])


def test_smaller_ones_are_told_and_can_be_tightened(suite):
    suite.write(SUITE)
    suite.run(*UPDATE)
    suite.write(SUITE.replace("(4 * MiB", "(2 * MiB").replace("64", "32"))
    result = suite.run(GATE)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "gpuclean: leaks.json: fixture 'model' of test_it.py on fake:0: 32.0 MiB instead of the 64.0 MiB *",
            "gpuclean: leaks.json: test_it.py::test_a on fake:0: 2.0 MiB instead of the 4.0 MiB that are known",
            "gpuclean: leaks.json: tighten it with --gpu-leak-update-baseline",
        ]
    )
    suite.run(*UPDATE)
    assert leaks(suite)["test_it.py::test_a fake:0"] == 2 * MiB
    suite.write(SUITE)
    suite.run(GATE).assert_outcomes(passed=4, errors=2)


@pytest.mark.parametrize("arguments", [(GATE,), UPDATE], ids=["compared", "updated"])
def test_what_adds_up_is_not_smaller_because_workers_have_shared_the_tests(suite, arguments):
    pytest.importorskip("xdist")
    suite.write("""
        @pytest.mark.parametrize("number", range(8))
        def test_keeps_a_little(number):
            KEPT.append(allocate(3 * MiB // 4))
    """)
    suite.run(*UPDATE).assert_outcomes(passed=8)
    assert leaks(suite) == {"test_it.py fake:0": 6 * MiB}
    result = suite.run_apart(*arguments, "-p", "xdist", "-n2", "--dist=load")
    result.assert_outcomes(passed=8)
    result.stdout.no_fnmatch_line("*instead of*")
    assert leaks(suite) == {"test_it.py fake:0": 6 * MiB}


def test_what_adds_up_is_smaller_where_every_worker_has_run_all_tests(suite):
    pytest.importorskip("xdist")
    tests = """
        @pytest.mark.parametrize("number", range(8))
        def test_keeps_a_little(number):
            KEPT.append(allocate(3 * MiB // 4))
    """
    suite.write(tests)
    suite.run(*UPDATE).assert_outcomes(passed=8)
    suite.write(tests.replace("3 * MiB // 4", "3 * MiB // 8"))
    result = suite.run_apart(GATE, "-p", "xdist", "-n2", "--dist=each")
    result.stdout.fnmatch_lines(["gpuclean: leaks.json: test_it.py on fake:0: 3.0 MiB instead of the 6.0 MiB *"])


def test_leaks_that_are_no_more_are_told(suite, ways):
    suite.write(SUITE)
    run(suite, *UPDATE, *ways)
    suite.write("def test_a(): pass")
    result = run(suite, GATE, *ways)
    result.stdout.fnmatch_lines(
        [
            "gpuclean: leaks.json: fixture 'model' of test_it.py on fake:0: leaks no more (64.0 MiB are known)",
            "gpuclean: leaks.json: test_it.py::test_a on fake:0: leaks no more (4.0 MiB are known)",
            "gpuclean: leaks.json: test_it.py::test_b?b::c?d?? on fake:1: is not there any more",
        ]
    )
    run(suite, *UPDATE, *ways)
    assert leaks(suite) == {}


def test_a_part_of_the_suite_is_gated_and_says_nothing_of_the_rest(suite):
    suite.write(SUITE)
    suite.run(*UPDATE)
    result = suite.run(GATE, "-k", "test_clean")
    result.assert_outcomes(passed=1, deselected=3)
    result.stdout.no_fnmatch_line("*leaks.json: *")


def test_peaks_are_no_leaks_that_one_can_know(suite):
    suite.write("def test_it(): allocate(64 * MiB)")
    suite.run("--gpu-peak-limit=1MiB", *UPDATE).assert_outcomes(passed=1, errors=1)


def test_what_is_allowed_elsewhere_is_not_written(suite):
    suite.write("""
        @pytest.mark.gpu_leak(allow="known")
        def test_marked(): KEPT.append(allocate(4 * MiB))

        def test_listed(): KEPT.append(allocate(4 * MiB))

        def test_other(): KEPT.append(allocate(4 * MiB))
    """)
    suite.ini("gpu_leak_allow =", "  *test_listed  a first-use cache")
    suite.run(*UPDATE).assert_outcomes(passed=3)
    assert leaks(suite) == {"test_it.py::test_other fake:0": 4 * MiB}


def test_a_leak_that_is_confirmed_as_kept_once_is_not_written(suite):
    suite.write("""
        def test_once():
            if not KEPT:
                KEPT.append(allocate(4 * MiB))

        def test_grows():
            KEPT.append(allocate(4 * MiB))
    """)
    suite.run(*UPDATE, "--gpu-leak-confirm=1").assert_outcomes(passed=2)
    assert list(leaks(suite)) == ["test_it.py::test_grows fake:0"]


def test_a_test_that_runs_again_is_known_in_each_attempt(suite):
    pytest.importorskip("pytest_rerunfailures")
    suite.write("""
        RUNS = []

        def test_a():
            RUNS.append(1)
            KEPT.append(allocate(4 * MiB))
            assert len(RUNS) > 1
    """)
    known(suite)
    result = suite.run_apart(GATE, "-p", "rerunfailures", "--reruns=1")
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}


@pytest.mark.parametrize(("mode", "outcomes"), [("warn", {"warnings": 1}), ("report", {}), ("off", {})])
def test_the_mode_is_that_of_the_new_ones(suite, mode, outcomes):
    suite.write("""
        def test_a(): KEPT.append(allocate(4 * MiB))
        def test_b(): KEPT.append(allocate(4 * MiB))
    """)
    known(suite)
    suite.run_apart(GATE, f"--gpu-leak={mode}").assert_outcomes(passed=2, **outcomes)


# -- when the file is left as it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "arguments", "says"),
    [
        ("", ("-k", "test_a"), "3 tests were deselected"),
        ("", ("--deselect=test_it.py::test_a",), "1 tests were deselected"),
        ("", ("test_it.py::test_clean",), "it ran test_it.py::test_clean alone"),
        ("def test_z(): assert 0", (), "the run failed"),
        ("def test_z(): assert 0", ("-x",), "stopping after 1 failures"),
        ("def test_z(): raise KeyboardInterrupt", (), "it was interrupted"),
        ("def test_z(): pytest.exit('x', 0)", (), "4 tests did not come"),
    ],
    ids=["k", "deselect", "one test", "failed", "x", "interrupted", "exit"],
)
def test_a_run_that_failed_or_ran_a_part_leaves_the_file(suite, more, arguments, says):
    suite.write(f"{SUITE}\n    {more}\n    def test_zz(): pass" if more else SUITE)
    text = known(suite, 9 * MiB)
    result = suite.run_apart(*UPDATE, *arguments)
    assert (suite.pytester.path / FILE).read_text() == text
    result.stdout.fnmatch_lines(["gpuclean: NOT WRITTEN *leaks.json: *"])
    if "exit" not in more:
        result.stdout.fnmatch_lines([f"gpuclean: NOT WRITTEN *leaks.json: *{says}*"])
    assert result.ret != 0


def test_a_file_that_was_not_collected_leaves_the_file(suite):
    suite.write(SUITE)
    suite.write("def test_other(): KEPT.append(allocate(4 * MiB))", name="test_other")
    suite.run(*UPDATE)
    before = leaks(suite)
    result = suite.run(*UPDATE, "test_it.py")
    result.stdout.fnmatch_lines(["gpuclean: NOT WRITTEN *: nothing of test_other.py was collected"])
    assert leaks(suite) == before
    (suite.pytester.path / "test_other.py").unlink()
    suite.run(*UPDATE)
    assert "test_other.py::test_other fake:0" not in leaks(suite)


def test_a_worker_that_died_leaves_the_file(suite):
    pytest.importorskip("xdist")
    suite.write(f"{SUITE}\n    def test_dies():\n        import os\n        os._exit(1)")
    text = known(suite)
    result = suite.run_apart(*UPDATE, "-p", "xdist", "-n1")
    assert (suite.pytester.path / FILE).read_text() == text
    result.stdout.fnmatch_lines(["gpuclean: NOT WRITTEN *leaks.json: gw0 crashed"])


def test_workers_that_deselect_leave_the_file(suite):
    pytest.importorskip("xdist")
    suite.write(SUITE)
    text = known(suite)
    result = suite.run_apart(*UPDATE, "-p", "xdist", "-n2", "-k", "test_a")
    assert (suite.pytester.path / FILE).read_text() == text
    result.stdout.fnmatch_lines(["gpuclean: NOT WRITTEN *leaks.json: 3 tests were deselected"])
    assert result.ret != 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1, column 1"),
        ("<<<<<<< HEAD", "line 1, column 1"),
        ("[]", "no baseline of pytest-gpuclean"),
        ('{"format": "F", "version": 2, "leaks": []}', "version 2 of the format is later"),
        ('{"format": "F", "version": 1}', "leaks is missing"),
        ('{"format": "F", "version": 1, "leaks": [], "x": 1}', "'x' is not known here"),
        ('{"format": "F", "version": 1, "leaks": [{"where": "t"}]}', "leaks[0]: kind is missing"),
        ('{"format": "F", "version": 1, "leaks": [ONE, ONE]}', "leaks[1]: t on cuda:0 (torch) is there twice"),
        ('{"format": "F", "version": 1, "leaks": [{"leaked_byte": 1}]}', "leaks[0]: "),
        ('{"format": "F", "version": 1, "leaks": [ONE+]}', "'sise' is not known here"),
        ('{"format": "F", "version": 1, "leaks": [ONE-]}', "-1 is less than nothing"),
    ],
)
@pytest.mark.parametrize("arguments", [(GATE,), UPDATE], ids=["gate", "update"])
def test_a_broken_file_is_refused_by_name_and_left(suite, text, says, arguments):
    one = '{"where": "t", "kind": "test", "device": "cuda:0", "source": "torch", "leaked_bytes": 1}'
    text = text.replace('"F"', f'"{FORMAT}"')
    text = text.replace("ONE+", one[:-1] + ', "sise": 1}').replace("ONE-", one.replace("1}", "-1}")).replace("ONE", one)
    suite.write("def test_it(): print('RAN')")
    (suite.pytester.path / FILE).write_text(text)
    result = suite.run(*arguments, "-s")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = result.stderr.str() + result.stdout.str()
    assert "--gpu-leak-baseline: " in told
    assert says in told
    assert "INTERNALERROR" not in told
    assert "RAN" not in told
    assert (suite.pytester.path / FILE).read_text() == text


def test_a_broken_file_is_refused_before_any_worker_starts(suite):
    pytest.importorskip("xdist")
    suite.write("def test_it(): print('RAN')")
    (suite.pytester.path / FILE).write_text("{")
    result = suite.run_apart(GATE, "-p", "xdist", "-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--gpu-leak-baseline: leaks.json: line 1, column 2" in result.stderr.str()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([GATE], "is not there; make it with --gpu-leak-update-baseline"),
        (["--gpu-leak-update-baseline"], "it needs the file, --gpu-leak-baseline=FILE"),
        (["--gpu-leak-baseline=."], "is no file"),
        (["--gpu-leak-baseline=.", "--gpu-leak-update-baseline"], "is a folder; name a file in it"),
        (["--gpu-leak-baseline="], "'' is no file"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(suite, arguments, says):
    suite.write(SUITE)
    result = suite.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in result.stderr.str()


def test_the_file_may_stand_in_the_ini_file_and_lies_beside_it(suite):
    suite.write(SUITE)
    suite.ini(f"gpu_leak_baseline = {FILE}")
    suite.run("--gpu-leak-update-baseline").assert_outcomes(passed=4)
    suite.run().assert_outcomes(passed=4)
    suite.run("--gpu-clean=off").assert_outcomes(passed=4)
    (suite.pytester.path / FILE).unlink()
    suite.run("--gpu-clean=off").assert_outcomes(passed=4)


# -- gpu_leak_allow ---------------------------------------------------------------------------------------------------


def test_a_leak_that_is_listed_is_allowed_for_its_reason(suite, ways):
    suite.write(SUITE)
    suite.ini(
        "gpu_leak_allow =", "  test_it.py::test_[ab]*  never", "  *::test_b[*]  a first-use cache", "  model  it stays"
    )
    result = run(suite, "--gpu-leak=fail", *ways)
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["ALLOWED test_it.py::test_b*", "  allowed: a first-use cache"])
    result.stdout.fnmatch_lines(
        ["gpuclean: gpu_leak_allow: no leak is like 'test_it.py::test_[[]ab]*' any more (never)"]
    )
    result.stdout.no_fnmatch_line("*no leak is like 'model'*")


def test_a_part_of_the_suite_says_nothing_of_the_list(suite):
    suite.write(SUITE)
    suite.ini("gpu_leak_allow =", "  *::nothing  never")
    suite.run("--gpu-leak=fail", "-k", "clean").stdout.no_fnmatch_line("*no leak is like*")


def test_a_line_without_a_reason_is_refused(suite):
    suite.write(SUITE)
    suite.ini("gpu_leak_allow =", "  *::test_b*")
    result = suite.run("--gpu-leak=fail")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "gpu_leak_allow in tox.ini: '*::test_b*' has no reason" in result.stderr.str()
