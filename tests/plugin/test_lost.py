"""Errors that stick: who broke the device, what came of it, and how the run goes on."""

import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter

import pytest

GATE = "--gpu-leak=fail"
SINCE = "gpuclean: fake:0 is lost since this test: AcceleratorError: fake error: device 0 is lost"

BREAKS = """
    def test_before():
        pass

    def test_breaks():
        fakegpu.LOST[0] = True
        allocate(1)

    def test_meets_it():
        allocate(1)

    def test_fails_for_itself():
        assert "this" == "that"

    def test_passes():
        pass

    @pytest.fixture
    def batch():
        return allocate(1)

    def test_cannot_come_up(batch):
        pass
"""
MANY = """
    import os

    @pytest.fixture(scope="session", autouse=True)
    def world():
        yield
        print("WORLD DOWN")

    @pytest.mark.parametrize("number", range(24))
    def test_it(number):
        with open("ran.txt", "a") as file:
            file.write(f"{number} {os.environ.get('PYTEST_XDIST_WORKER', 'here')}\\n")
        if number in (3, 4, 17, 23):
            fakegpu.LOST[0] = True
        if number == 9:
            assert number == 10
        allocate(1)
"""
BREAK = {3, 4, 17, 23}


@pytest.fixture(autouse=True)
def _no_real_accelerator(request, monkeypatch):
    """An earlier test in this process may use one: it would be asked, and answer."""
    if "simgpu" not in request.fixturenames:
        monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.fixture
def needs_xdist():
    pytest.importorskip("xdist")


def ran(suite):
    lines = (suite.pytester.path / "ran.txt").read_text().splitlines()
    return Counter(int(line.split()[0]) for line in lines), {line.split()[1] for line in lines}


# -- telling it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [[], ["-p", "xdist", "-n0"], ["-p", "xdist", "-n1"]])
def test_the_one_who_broke_it_is_named_and_what_came_of_it_is_counted(suite, workers):
    if workers:
        pytest.importorskip("xdist")
    suite.write(BREAKS)
    result = suite.run_apart(GATE, *workers)
    result.assert_outcomes(passed=2, failed=3, errors=1)
    consequence = "gpuclean: a consequence of test_it.py::test_breaks: fake:0 is lost since then (AcceleratorError: *"
    result.stdout.fnmatch_lines([SINCE])
    result.stdout.fnmatch_lines([consequence])
    result.stdout.fnmatch_lines(["gpuclean: fake:0 is lost since test_it.py::test_breaks: this may come of it"])
    result.stdout.fnmatch_lines(
        [
            "LOST fake:0 since test_it.py::test_breaks: AcceleratorError: fake error: device 0 is lost",
            "  2 failures are consequences of it",
        ]
    )


def test_a_lost_device_is_neither_judged_nor_cleaned(suite):
    suite.conftest("""
        class Driver:
            name = "driver"
            calls_driver = True

            def clean(self, occasion):
                print("DRIVER CALLED")
                return "called"

        class Other:
            name = "other"

            def clean(self, occasion):
                print("OTHER CALLED")
                return "called"

        def pytest_gpuclean_cleaners(config):
            return [Driver(), Other()]
    """)
    suite.write("""
        def test_breaks():
            KEPT.append(allocate(8 * MiB))
            fakegpu.LOST[0] = True
            allocate(1)

        def test_other_device():
            fakegpu.IN_USE[0] += 64 * MiB
            KEPT.append(allocate(8 * MiB, device=1))
    """)
    result = suite.run(GATE, "--gpu-clean=comprehensive", "-s")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: leaked 8.0 MiB on fake:1*"])
    assert "on fake:0 (threshold" not in result.stdout.str()
    result.stdout.fnmatch_lines(["not measured: fake:0: is lost since test_it.py::test_breaks: AcceleratorError: *"])
    assert "DRIVER CALLED" not in result.stdout.str()
    assert "OTHER CALLED" in result.stdout.str()


@pytest.mark.parametrize(
    "body",
    [
        'raise RuntimeError("CUDA error: no kernel image is available for execution on the device")',
        'assert "CUDA error: device-side assert triggered" == ""',
        'raise type("MyError", (RuntimeError,), {})("CUDA error: device-side assert triggered")',
        'with pytest.raises(RuntimeError, match="nothing"):\n                raise RuntimeError("device 0 is lost")',
    ],
)
def test_what_is_no_such_error_loses_nothing(suite, body):
    suite.write(f"""
        def test_it():
            {body}
    """)
    result = suite.run(GATE)
    result.assert_outcomes(failed=1)
    assert "lost since" not in result.stdout.str()


def test_an_error_is_not_believed_where_no_device_is_in_use(suite):
    suite.pytester.makeconftest("")
    suite.write("""
        def test_it():
            raise RuntimeError("CUDA error: device-side assert triggered")
    """)
    result = suite.run(GATE)
    result.assert_outcomes(failed=1)
    assert "lost since" not in result.stdout.str()


def test_a_victim_is_not_run_again_on_a_lost_device(suite):
    suite.write("""
        RUNS = []

        def test_it():
            RUNS.append(1)
            print("RUN")
            if len(RUNS) == 1:
                allocate(2048 * MiB)
            fakegpu.LOST[0] = True
            allocate(1)
    """)
    result = suite.run(GATE, "--gpu-oom-retry=3", "-s")
    result.assert_outcomes(failed=1)
    assert len(re.findall(r'(?<!")RUN(?!S)', result.stdout.str())) == 2
    result.stdout.fnmatch_lines(["LOST fake:0 since test_it.py::test_it: *"])


def test_a_test_that_rerunfailures_runs_again_breaks_it_once(suite):
    pytest.importorskip("pytest_rerunfailures")
    suite.write(BREAKS)
    result = suite.run_apart(GATE, "-p", "rerunfailures", "--reruns=2")
    assert result.stdout.str().count("LOST fake:0") == 1
    result.stdout.fnmatch_lines(["LOST fake:0 since test_it.py::test_breaks: *", "  2 failures are consequences of it"])


# -- going on ---------------------------------------------------------------------------------------------------------


def test_stop_ends_the_run_with_all_reports(suite):
    suite.write(MANY)
    result = suite.run(GATE, "--gpu-on-lost=stop", "-s", "--junitxml=it.xml")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*gpuclean: fake:0 is lost since test_it.py::test_it?3? (--gpu-on-lost=stop)*"])
    assert ran(suite)[0] == dict.fromkeys(range(4), 1)
    assert len(list(ET.parse(suite.pytester.path / "it.xml").iter("testcase"))) == 4
    assert result.stdout.str().count("WORLD DOWN") == 1


def test_stop_alone_is_enough_to_be_asked_for(suite):
    suite.write(MANY)
    result = suite.run("--gpu-on-lost=stop")
    assert result.ret == pytest.ExitCode.INTERRUPTED


@pytest.mark.usefixtures("needs_xdist")
def test_stop_in_a_worker_ends_the_whole_run(suite):
    suite.write(MANY)
    result = suite.run_apart(GATE, "--gpu-on-lost=stop", "-p", "xdist", "-n1")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert ran(suite)[0] == dict.fromkeys(range(4), 1)


@pytest.mark.usefixtures("needs_xdist")
@pytest.mark.parametrize(
    "workers",
    [
        ["-n1"],
        ["-n2"],
        ["-n1", "--dist=loadgroup"],
        ["-n2", "--dist=loadgroup"],
        ["-n2", "--dist=worksteal"],
        ["-n2", "--maxschedchunk=1"],
    ],
    ids=" ".join,
)
def test_replace_runs_every_test_once_whatever_hands_them_out(suite, workers):
    suite.write(MANY)
    result = suite.run_apart(GATE, "--gpu-on-lost=replace", "-p", "xdist", *workers, "--junitxml=it.xml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    counts, by = ran(suite)
    assert counts == dict.fromkeys(range(24), 1)
    assert len(by) > 1
    result.assert_outcomes(failed=len(BREAK) + 1, passed=24 - len(BREAK) - 1)
    text = result.stdout.str()
    assert text.count("LOST fake:0 since") == len(BREAK)
    assert "crashed" not in text
    assert "INTERNALERROR" not in text
    cases = list(ET.parse(suite.pytester.path / "it.xml").iter("testcase"))
    assert len(cases) == len({case.get("name") for case in cases}) == 24
    assert sum(case.find("failure") is not None for case in cases) == len(BREAK) + 1
    assert len(re.findall(r"worker gw\d+ is replaced: fake:0 is lost since test_it.py::test_it", text)) == len(BREAK)


@pytest.mark.usefixtures("needs_xdist")
@pytest.mark.parametrize(
    ("dist", "workers"), [("load", "-n2"), ("loadscope", "-n1"), ("loadfile", "-n2"), ("worksteal", "-n2")]
)
def test_replace_runs_every_test_of_many_files_once(suite, dist, workers):
    for module in range(6):
        suite.write(MANY.replace("range(24)", f"range({4 * module}, {4 * module + 4})"), f"test_{module}")
    result = suite.run_apart(GATE, "--gpu-on-lost=replace", "-p", "xdist", workers, f"--dist={dist}")
    assert ran(suite)[0] == dict.fromkeys(range(24), 1)
    result.assert_outcomes(failed=len(BREAK) + 1, passed=24 - len(BREAK) - 1)


@pytest.mark.usefixtures("needs_xdist")
@pytest.mark.parametrize("left", [1, 2])
def test_the_last_tests_are_run_where_all_have_been_handed_out(suite, left):
    suite.write(MANY.replace("range(24)", f"range(3, {4 + left})").replace("(3, 4, 17, 23)", "(3,)"))
    result = suite.run_apart(GATE, "--gpu-on-lost=replace", "-p", "xdist", "-n1")
    result.assert_outcomes(failed=1, passed=left)


@pytest.mark.usefixtures("needs_xdist")
def test_a_worker_that_leaves_sends_what_it_has(suite):
    suite.conftest("""
        def pytest_sessionfinish(session):
            if hasattr(session.config, "workeroutput"):
                session.config.workeroutput["mine"] = "sent"

        class Controller:
            @pytest.hookimpl(optionalhook=True)
            def pytest_testnodedown(self, node, error):
                print("\\nNODE", error, node.workeroutput.get("mine"))

        def pytest_configure(config):
            if not hasattr(config, "workerinput"):
                config.pluginmanager.register(Controller())
    """)
    suite.write(MANY)
    result = suite.run_apart(GATE, "--gpu-on-lost=replace", "-p", "xdist", "-n1", "-s")
    assert result.stdout.str().count("NODE None sent") == len(ran(suite)[1])


@pytest.mark.usefixtures("needs_xdist")
def test_replace_goes_with_rerunfailures(suite):
    pytest.importorskip("pytest_rerunfailures")
    suite.write(MANY)
    result = suite.run_apart(
        GATE,
        "--gpu-on-lost=replace",
        "-p",
        "xdist",
        "-p",
        "rerunfailures",
        "-n2",
        "--reruns=1",
        "-p",
        "no:cacheprovider",
    )
    outcomes = result.parseoutcomes()
    assert (outcomes["failed"], outcomes["passed"]) == (len(BREAK) + 1, 24 - len(BREAK) - 1)
    assert set(ran(suite)[0]) == set(range(24))


@pytest.mark.usefixtures("needs_xdist")
def test_the_first_failure_still_ends_the_run(suite):
    suite.write(MANY)
    result = suite.run_apart(GATE, "--gpu-on-lost=replace", "-p", "xdist", "-n1", "-x")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert ran(suite)[0] == dict.fromkeys(range(4), 1)
    assert "INTERNALERROR" not in result.stdout.str()


@pytest.mark.usefixtures("needs_xdist")
def test_more_workers_than_xdist_restarts_end_the_run(suite):
    suite.write(MANY)
    result = suite.run_apart(GATE, "--gpu-on-lost=replace", "-p", "xdist", "-n1", "--max-worker-restart=1")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*gpuclean: more workers have lost a device than --max-worker-restart allows*"])
    assert ran(suite)[0] == dict.fromkeys(range(5), 1)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "needs the workers of pytest-xdist"),
        (["-p", "xdist", "-n0"], "needs the workers of pytest-xdist"),
        (["-p", "xdist", "-n1", "--max-worker-restart=0"], "needs more than --max-worker-restart=0"),
        (["-p", "xdist", "-n1", "--dist=each"], "does not go with --dist=each"),
    ],
)
def test_where_no_worker_can_be_replaced_it_is_said_and_reported_alone(suite, arguments, reason):
    if arguments:
        pytest.importorskip("xdist")
    suite.write(BREAKS)
    result = suite.run_apart(GATE, "--gpu-on-lost=replace", *arguments)
    result.stdout.fnmatch_lines([f"gpuclean: --gpu-on-lost=replace {reason}: a lost device is only reported"])
    result.assert_outcomes(passed=2, failed=3, errors=1)


@pytest.mark.usefixtures("needs_xdist")
def test_a_worker_that_really_crashes_is_still_xdist_s(suite):
    suite.write("""
        import os

        @pytest.mark.parametrize("number", range(6))
        def test_it(number):
            if number == 2:
                os._exit(1)
    """)
    result = suite.run_apart(GATE, "--gpu-on-lost=replace", "-p", "xdist", "-n1")
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["*worker 'gw0' crashed while running*"])


# -- a device that raises, for real -----------------------------------------------------------------------------------


ONES = """
    import torch
    from simgpu import control

    def ones(device=0):
        return torch.ones(64 * 1024, device=f"simgpu:{device}")
"""


@pytest.fixture
def world(suite, simgpu, no_garbage):
    """An inner suite on the simulated accelerator, whose devices are well again afterwards."""
    suite.pytester.makeconftest("")
    yield suite
    simgpu.control.reset()


@pytest.mark.parametrize("with_stats", [True, False])
def test_a_test_that_passes_and_breaks_it_is_found_by_its_cleanup(world, with_stats):
    world.write(f"""
    {ONES}
    def test_breaks():
        ones()
        control.lose(0, with_stats={with_stats})

    def test_meets_it():
        ones()
    """)
    result = world.run(GATE, "--gpu-clean=comprehensive")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "LOST simgpu:0 since test_it.py::test_breaks: *device 0 is lost",
            "  1 failure is a consequence of it",
        ]
    )


def test_a_failure_of_another_sort_finds_a_device_that_does_not_answer(world):
    world.write(f"""
    {ONES}
    def test_breaks():
        ones()
        control.lose(0, with_stats=False)
        assert "this" == "that"
    """)
    result = world.run(GATE)
    result.stdout.fnmatch_lines(["LOST simgpu:0 since test_it.py::test_breaks: AcceleratorError: *"])


def test_a_device_that_answers_is_not_lost_whatever_an_error_says(world):
    world.write(f"""
    {ONES}
    def test_it():
        ones()
        raise RuntimeError("transform failed: device-side assert triggered")
    """)
    result = world.run(GATE)
    result.assert_outcomes(failed=1)
    assert "lost since" not in result.stdout.str()


def test_a_device_that_answers_again_is_judged_again(world):
    world.write(f"""
    {ONES}
    def test_breaks():
        control.lose(0)
        ones()

    def test_fails():
        control.revive(0)
        assert "this" == "that"

    def test_leaks():
        KEPT.append(torch.ones(1024 * 1024, device="simgpu:0"))
    """)
    result = world.run(GATE)
    result.assert_outcomes(passed=1, failed=2, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: leaked 4.0 MiB on simgpu:0*"])


def test_no_device_is_brought_up_to_ask_it(world, simgpu):
    world.write("""
        def test_it():
            assert "this" == "that"
    """)
    before = simgpu.control.synchronize_count()
    world.run(GATE).assert_outcomes(failed=1)
    world.write(f"""
    {ONES}
    def test_it():
        assert "this" == "that"
    """)
    world.run(GATE).assert_outcomes(failed=1)
    assert simgpu.control.synchronize_count() - before <= 2
