"""The files of --gpu-report: what is in them whatever the run does, and what is no file."""

import json
import os
import re

import pytest

from pytest_gpuclean.cli import main

MiB = 2**20
MIXED = """
    @pytest.fixture(scope="module")
    def model():
        yield allocate(64 * MiB)

    def test_clean():
        pass

    def test_uses(model):
        allocate(128 * MiB)

    def test_leaks():
        KEPT.append(allocate(4 * MiB))

    def test_cycle():
        node = [allocate(8 * MiB)]
        node.append(node)

    def test_fails():
        assert 0

    @pytest.mark.skip
    def test_skips():
        pass

    @pytest.mark.xfail
    def test_xfails():
        assert 0

    @pytest.fixture
    def broken():
        raise OSError

    def test_errs(broken):
        pass
"""


def reported(suite, name="out.json"):
    """Give the only run of a report, and its tests by their names."""
    (run,) = json.loads((suite.pytester.path / name).read_text())["runs"]
    tests = {test["test"].partition("::")[2]: test for test in run["tests"]}
    assert len(tests) == len(run["tests"])
    return run, tests


@pytest.fixture(params=[(), ("-p", "xdist", "-n0"), ("-p", "xdist", "-n2")], ids=["alone", "n0", "n2"])
def ways(request):
    if request.param:
        pytest.importorskip("xdist")
    return request.param


def run(suite, *arguments):
    return suite.run_apart(*arguments) if "-n2" in arguments else suite.run(*arguments)


def test_no_test_costs_more_time_than_it_takes(suite):
    """The first reading of a module looks through the heap, before anything of the test runs."""
    suite.write("def test_first(): pass\n\ndef test_second(): pass")
    suite.run("--gpu-clean=quick", "--gpu-leak-watch=all", "--gpu-report=out.json")
    _, tests = reported(suite)
    assert set(tests) == {"test_first", "test_second"}
    for name, test in tests.items():
        assert 0 < test["cost_seconds"] <= test["seconds"], name


def test_a_report_has_every_test_with_what_it_used(suite, ways):
    suite.write(MIXED)
    result = run(suite, "--gpu-clean=comprehensive", "--gpu-report=out.json", *ways)
    whole, tests = reported(suite)
    assert {name: test["outcome"] for name, test in tests.items()} == {
        "test_clean": "passed",
        "test_uses": "passed",
        "test_leaks": "error",
        "test_cycle": "passed",
        "test_fails": "failed",
        "test_skips": "skipped",
        "test_xfails": "xfailed",
        "test_errs": "error",
    }
    (use,) = [use for use in tests["test_uses"]["memory"] if use["device"] == "fake:0"]
    assert use["peak_bytes"] - use["begin_bytes"] == 192 * MiB
    (leak,) = tests["test_leaks"]["leaks"]
    assert (leak["device"], leak["leaked_bytes"], tests["test_leaks"]["line"]) == ("fake:0", 4 * MiB, 18)
    assert tests["test_leaks"]["file"] == "test_it.py"
    assert tests["test_cycle"]["given_back_bytes"] == 8 * MiB
    assert whole["given_back_bytes"] == 8 * MiB
    assert all(step["times"] > 0 and step["seconds"] > 0 for step in whole["steps"])
    assert whole["steps"]
    assert {fixture["name"] for fixture in whole["fixtures"]} == {"model"}
    assert whole["exit_status"] == 1
    assert "partial" not in whole
    assert whole.get("workers", []) == (["gw0", "gw1"] if "-n2" in ways else [])
    result.stdout.fnmatch_lines(["gpuclean: report: *out.json"])


def test_memory_follows_from_test_to_test(suite):
    suite.write("""
        def test_first(): KEPT.append(allocate(MiB // 2))
        def test_second(): pass
        def test_third(): KEPT.append(allocate(MiB // 4))
        def test_fourth(): KEPT.clear()
    """)
    suite.run("--gpu-report=out.json")
    _, tests = reported(suite)
    moves = {
        name: [(use["begin_bytes"], use["end_bytes"]) for use in test.get("memory", ()) if use["device"] == "fake:0"]
        for name, test in tests.items()
    }
    assert moves == {
        "test_first": [(0, MiB // 2)],
        "test_second": [],
        "test_third": [(MiB // 2, 3 * MiB // 4)],
        "test_fourth": [(3 * MiB // 4, 0)],
    }


def test_the_peak_of_a_test_is_its_own(suite):
    suite.write("""
        def test_first(): allocate(64 * MiB)
        def test_second(): allocate(8 * MiB)
        def test_third(): pass
    """)
    suite.run("--gpu-leak=fail", "--gpu-report=out.json")
    _, tests = reported(suite)
    peaks = {name: [use.get("peak_bytes") for use in test.get("memory", ())] for name, test in tests.items()}
    assert (max(peaks["test_first"]), max(peaks["test_second"]), peaks["test_third"]) == (64 * MiB, 8 * MiB, [])


def test_several_files_in_several_formats(suite):
    suite.write(MIXED)
    suite.run("--gpu-leak=fail", "--gpu-report=a.json", "--gpu-report=b.json", "--gpu-report", "deep/er/c.md")
    assert reported(suite, "a.json") == reported(suite, "b.json")
    assert (suite.pytester.path / "deep/er/c.md").read_text().startswith("## gpuclean: 1 leak, 4.0 MiB\n")


def test_files_are_named_in_the_ini_file_and_lie_beside_it(suite, monkeypatch):
    suite.write(MIXED)
    suite.ini("gpu_report =", "  a.json", "  out/b.md")
    (suite.pytester.path / "sub").mkdir()
    suite.run("--rootdir=.", "-c", "tox.ini")
    assert (suite.pytester.path / "a.json").exists()
    assert (suite.pytester.path / "out/b.md").exists()


def test_a_test_that_changes_the_directory_does_not_move_the_file(suite):
    suite.write("""
        def test_it(tmp_path):
            import os
            os.chdir(tmp_path)
    """)
    suite.run("--gpu-report=out.json")
    assert reported(suite)[1].keys() == {"test_it"}


# -- only looking -----------------------------------------------------------------------------------------------------


LEAVES = """
    import subprocess, sys

    def test_leaves():
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)  # hunter2"])
"""


def test_on_its_own_it_fails_and_stops_nothing(suite):
    suite.write(MIXED + LEAVES)
    result = suite.run_apart("--gpu-report=out.json", "-W", "ignore")
    result.assert_outcomes(passed=5, failed=1, skipped=1, xfailed=1, errors=1)  # the error is test_errs's own
    _, tests = reported(suite)
    assert tests["test_leaks"]["leaks"][0]["leaked_bytes"] == 4 * MiB
    assert tests["test_leaks"]["outcome"] == "passed"
    (left,) = tests["test_leaves"]["left"]
    assert left["is_spared"]


def test_it_takes_nothing_from_markers(suite):
    suite.write("""
        @pytest.mark.gpu_leak(threshold="1MiB")
        def test_marked():
            KEPT.append(allocate(4 * MiB))

        def test_other():
            KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run("--gpu-report=out.json")
    result.assert_outcomes(passed=2, errors=1)
    assert {name: len(test["leaks"]) for name, test in reported(suite)[1].items()} == {
        "test_marked": 1,
        "test_other": 1,
    }


def test_a_marked_test_stops_what_it_leaves_also_under_a_report(suite):
    suite.write(LEAVES.replace("def test_leaves", '@pytest.mark.gpu_clean("quick")\n    def test_leaves'))
    suite.run("--gpu-report=out.json")
    (left,) = reported(suite)[1]["test_leaves"]["left"]
    assert left["ended_by"].startswith("SIG")


@pytest.mark.parametrize("arguments", [["--gpu-leak=fail"], ["--gpu-leak-threshold=1"], ["--gpu-clean=quick"]])
def test_beside_other_options_it_changes_no_outcome(suite, arguments):
    suite.write("def test_it(): KEPT.append(allocate(4 * MiB))")
    without = suite.run(*arguments).parseoutcomes()
    if arguments == ["--gpu-leak-threshold=1"]:
        assert without == {"passed": 1}
    assert suite.run(*arguments, "--gpu-report=out.json").parseoutcomes() == without


def test_a_run_that_is_silenced_writes_none(suite):
    suite.write(MIXED)
    suite.run("--gpu-clean=off", "--gpu-report=out.json")
    assert not (suite.pytester.path / "out.json").exists()


def test_with_the_gate_off_there_is_memory_and_no_leak(suite):
    suite.write(MIXED)
    suite.run("--gpu-leak=off", "--gpu-report=out.json")
    _, tests = reported(suite)
    assert "leaks" not in tests["test_leaks"]
    assert tests["test_leaks"]["memory"]


def test_values_of_arguments_are_not_written(suite):
    suite.write(LEAVES)
    suite.run("--gpu-clean=quick", "--gpu-report=out.json", "--gpu-report=out.md")
    for name in ("out.json", "out.md"):
        text = (suite.pytester.path / name).read_text()
        assert "hunter2" not in text
        assert "python" in text


# -- whatever else the run does ---------------------------------------------------------------------------------------


def test_each_attempt_of_a_test_that_runs_again_is_there(suite):
    pytest.importorskip("pytest_rerunfailures")
    suite.write("""
        RUNS = []

        def test_it():
            RUNS.append(1)
            if len(RUNS) == 2:
                KEPT.append(allocate(4 * MiB))
            assert len(RUNS) > 2
    """)
    suite.run_apart("--gpu-leak=fail", "--gpu-report=out.json", "-p", "rerunfailures", "--reruns=3")
    (whole,) = json.loads((suite.pytester.path / "out.json").read_text())["runs"]
    assert [(t["outcome"], t.get("attempt", 1), len(t.get("leaks", ()))) for t in whole["tests"]] == [
        ("rerun", 1, 0),
        ("rerun", 2, 1),
        ("rerun", 3, 0),  # it fails for the leak of the second
        ("error", 4, 0),
    ]


def test_a_teardown_that_fails_and_runs_again_is_there_once(suite):
    pytest.importorskip("pytest_rerunfailures")
    suite.write("""
        RUNS = []

        @pytest.fixture
        def resource():
            yield
            RUNS.append(1)
            assert len(RUNS) > 1

        def test_it(resource):
            pass
    """)
    suite.run_apart("--gpu-leak=fail", "--gpu-report=out.json", "-p", "rerunfailures", "--reruns=3")
    (whole,) = json.loads((suite.pytester.path / "out.json").read_text())["runs"]
    assert [(t["outcome"], t.get("attempt", 1)) for t in whole["tests"]] == [("rerun", 1), ("passed", 2)]


def test_a_worker_that_dies_leaves_its_test_as_crashed(suite):
    pytest.importorskip("xdist")
    suite.write("""
        def test_dies():
            import os
            os._exit(3)

        def test_lives():
            pass
    """)
    suite.run_apart("--gpu-report=out.json", "-p", "xdist", "-n1")
    whole, tests = reported(suite)
    assert {name: test["outcome"] for name, test in tests.items()} == {"test_dies": "crashed", "test_lives": "passed"}
    assert whole["partial"] == "gw0 crashed"


@pytest.mark.parametrize(
    ("body", "arguments", "says", "outcomes"),
    [
        ("raise KeyboardInterrupt", (), "it was interrupted", {"test_a": "passed", "test_b": "unfinished"}),
        ("assert 0", ("-x",), "stopping after 1 failures", {"test_a": "passed", "test_b": "failed"}),
        ("pytest.exit('enough')", (), "it was interrupted", {"test_a": "passed", "test_b": "unfinished"}),
    ],
    ids=["interrupted", "x", "exit"],
)
def test_a_run_that_did_not_end_says_so(suite, body, arguments, says, outcomes):
    suite.write(f"def test_a(): pass\ndef test_b(): {body}\ndef test_c(): pass")
    suite.run_apart("--gpu-report=out.json", *arguments)
    whole, tests = reported(suite)
    assert {name: test["outcome"] for name, test in tests.items()} == outcomes
    assert whole["partial"] == says


def test_a_run_without_tests_has_a_report(suite):
    suite.write("")
    suite.run("--gpu-report=out.json")
    whole, tests = reported(suite)
    assert (tests, whole["exit_status"]) == ({}, 5)


def test_collecting_alone_writes_none(suite):
    suite.write(MIXED)
    suite.run("--gpu-report=out.json", "--collect-only")
    assert not (suite.pytester.path / "out.json").exists()


def test_names_that_no_terminal_should_see_are_there_whole(suite):
    suite.write("""
        @pytest.mark.parametrize("x", ["</script>", "\\x1b[31m", "é|`"])
        def test_it(x):
            KEPT.append(allocate(4 * MiB))
    """)
    suite.run("--gpu-report=out.json", "--gpu-report=out.md")
    assert len(reported(suite)[1]) == 3
    assert "\x1b" not in (suite.pytester.path / "out.md").read_text()


# -- files that are none ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("out.xml", "'out.xml' ends in none of .json"),
        ("out", "'out' ends in none of .json"),
        ("", "'' is no file"),
        ("folder.json", "is a folder; name a file in it"),
        ("link.json", "is a link; name the file that it leads to"),
        ("test_it.py/out.json", "cannot be written: "),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_any_test(suite, ways, path, says):
    suite.write("def test_it(): print('RAN')")
    (suite.pytester.path / "folder.json").mkdir()
    (suite.pytester.path / "link.json").symlink_to("elsewhere")
    result = run(suite, f"--gpu-report={path}", "-s", *ways)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str() + result.stdout.str()
    assert "--gpu-report: '" in text
    assert says in text
    assert "INTERNALERROR" not in text
    assert "RAN" not in text


def test_a_file_that_becomes_a_folder_is_told_and_the_runs_result_stays(suite):
    suite.write("""
        def test_it():
            import os
            os.mkdir("out.json")
    """)
    result = suite.run("--gpu-report=out.json", "--gpu-report=out.md")
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["gpuclean: NOT WRITTEN *out.json: it is a folder; name a file in it"])
    assert (suite.pytester.path / "out.md").exists()
    assert not [name for name in os.listdir(suite.pytester.path) if name.startswith(".gpuclean")]


# -- properties -------------------------------------------------------------------------------------------------------


def junit(suite):
    text = (suite.pytester.path / "j.xml").read_text()
    found = {}
    for name, rest in re.findall(r'<testcase [^>]*name="([^"]*)"[^>]*?(?:/>|>(.*?)</testcase>)', text, re.DOTALL):
        found[name] = dict(re.findall(r'<property name="([^"]*)" value="([^"]*)"', rest))
    return found


def test_junit_says_what_a_test_used_leaked_and_gave_back(suite, ways):
    suite.write(MIXED)
    run(suite, "--gpu-clean=quick", "--junitxml=j.xml", *ways)
    found = junit(suite)
    assert found["test_clean"] == {}
    assert found["test_leaks"]["gpuclean_device"] == "fake:0"
    assert found["test_leaks"]["gpuclean_leaked_bytes"] == str(4 * MiB)
    assert found["test_cycle"]["gpuclean_given_back_bytes"] == str(8 * MiB)
    assert int(found["test_uses"]["gpuclean_peak_bytes"]) >= 192 * MiB
    assert found["test_fails"] == {}


def test_several_devices_have_a_property_each(suite):
    suite.write("""
        def test_it():
            KEPT.append(allocate(4 * MiB, 1))
            allocate(8 * MiB, 0)
    """)
    suite.run("--gpu-leak=report", "--junitxml=j.xml")
    assert junit(suite)["test_it"] == {
        "gpuclean_device": "fake:0, fake:1",
        "gpuclean_peak_bytes": str(8 * MiB),
        "gpuclean_leaked_bytes": str(4 * MiB),
        "gpuclean_peak_bytes[fake:0]": str(8 * MiB),
        "gpuclean_peak_bytes[fake:1]": str(4 * MiB),
        "gpuclean_leaked_bytes[fake:1]": str(4 * MiB),
    }


def test_an_allowed_leak_is_a_property_of_its_own(suite):
    suite.write("""
        @pytest.mark.gpu_leak(allow="known")
        def test_it():
            KEPT.append(allocate(4 * MiB))
    """)
    suite.run("--gpu-leak=fail", "--junitxml=j.xml")
    found = junit(suite)["test_it"]
    assert (found["gpuclean_leaked_bytes"], found["gpuclean_allowed_bytes"]) == ("0", str(4 * MiB))


def test_properties_of_the_tests_own_stay_and_ours_are_not_doubled(suite):
    pytest.importorskip("pytest_rerunfailures")
    suite.write("""
        RUNS = []

        def test_it(record_property):
            record_property("own", 1)
            RUNS.append(1)
            allocate(8 * MiB // len(RUNS))
            assert len(RUNS) > 1
    """)
    suite.run_apart("--gpu-leak=fail", "--junitxml=j.xml", "-p", "rerunfailures", "--reruns=1")
    cases = (suite.pytester.path / "j.xml").read_text().split("<testcase")[1:]  # rerunfailures from 16.3 on: two
    peaks = [re.findall('name="gpuclean_peak_bytes" value="([^"]*)"', text) for text in cases]
    assert peaks == [[str(8 * MiB)], [str(4 * MiB)]][-len(cases) :]
    assert all('name="own"' in text for text in cases)


@pytest.mark.parametrize("arguments", [[], ["--gpu-clean=off"], ["--gpu-leak=fail"]])
def test_a_test_with_nothing_to_say_has_no_property(suite, arguments):
    suite.conftest("""
        @pytest.hookimpl(trylast=True)
        def pytest_runtest_logreport(report):
            if report.when == "teardown":
                assert report.user_properties == []
    """)
    suite.write("def test_it(): allocate(4 * MiB)")
    suite.run(*arguments).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("module", "arguments", "files"),
    [
        ("pytest_html", ("-p", "pytest_html.plugin", "-p", "pytest_metadata.plugin", "--html=p.html"), "assets/*.txt"),
        (
            "pytest_jsonreport",
            ("-p", "pytest_jsonreport.plugin", "--json-report", "--json-report-file=p.json"),
            "p.json",
        ),
        ("pytest_reportlog", ("-p", "pytest_reportlog.plugin", "--report-log=p.log"), "p.log"),
    ],
    ids=["html", "json-report", "report-log"],
)
def test_other_reports_have_the_figures_too(suite, module, arguments, files):
    pytest.importorskip(module)
    suite.write(MIXED)
    suite.run_apart("--gpu-clean=quick", *arguments)
    text = "\n".join(path.read_text() for path in suite.pytester.path.glob(files))
    for name, value in (("gpuclean_leaked_bytes", 4 * MiB), ("gpuclean_given_back_bytes", 8 * MiB)):
        assert re.search(rf"{name}\W+{value}", text)


# -- annotations ------------------------------------------------------------------------------------------------------


def annotations(result):
    return [line for line in result.outlines if line.startswith("::")]


def test_a_leak_is_annotated_where_github_runs_it(suite, ways, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(suite.pytester.path.parent))
    suite.write(MIXED)
    (line,) = annotations(run(suite, "--gpu-leak=fail", *ways))
    folder = suite.pytester.path.name
    assert line.startswith(f"::error file={folder}/test_it.py,line=18,title=gpuclean%3A leaked 4.0 MiB on fake%3A0")
    assert line.endswith("::test_it.py::test_leaks")


@pytest.mark.parametrize("mode", ["warn", "report"])
def test_a_leak_that_does_not_fail_is_a_warning(suite, monkeypatch, mode):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    suite.write("def test_it(): KEPT.append(allocate(4 * MiB))")
    (line,) = annotations(suite.run_apart(f"--gpu-leak={mode}"))
    assert line.startswith("::warning ")


@pytest.mark.parametrize("github", [None, "false"])
def test_elsewhere_and_where_it_is_allowed_nothing_is_annotated(suite, monkeypatch, github):
    suite.write("""
        @pytest.mark.gpu_leak(allow="known")
        def test_allowed(): KEPT.append(allocate(4 * MiB))
    """)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert annotations(suite.run("--gpu-leak=fail")) == []
    suite.write("def test_it(): KEPT.append(allocate(4 * MiB))")
    if github is None:
        monkeypatch.delenv("GITHUB_ACTIONS")
    else:
        monkeypatch.setenv("GITHUB_ACTIONS", github)
    assert annotations(suite.run("--gpu-leak=fail")) == []


# -- shards -----------------------------------------------------------------------------------------------------------


def test_the_shards_of_a_suite_become_one_report(suite, monkeypatch, capsys):
    suite.write(MIXED)
    monkeypatch.setenv("CI_NODE_TOTAL", "2")
    for index, selected in ((1, "leaks or cycle"), (2, "not leaks and not cycle")):
        monkeypatch.setenv("CI_NODE_INDEX", str(index))
        suite.run("--gpu-clean=quick", f"--gpu-report={index}.json", "-k", selected)
    assert main(["report", "merge", "1.json", "2.json", "-o", "all.json"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 runs, 8 tests: 1 leak, 4.0 MiB; in all.json"
    whole = json.loads((suite.pytester.path / "all.json").read_text())
    assert [(one["shard"]["index"], len(one["tests"])) for one in whole["runs"]] == [(1, 2), (2, 6)]
    assert main(["report", "merge", "2.json", "-o", "all.json"]) == 1
