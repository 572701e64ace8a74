"""`gpu_exclusive`: one test at a time on a device, across workers and across runs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks on Windows")

XDIST = ["-p", "xdist", "-n2"]
INSIDE = """
    import contextlib, os, time
    from pathlib import Path

    HERE = Path(__file__).parent

    @contextlib.contextmanager
    def inside(seconds=0.05):
        os.close(os.open(HERE / "inside", os.O_CREAT | os.O_EXCL))
        time.sleep(seconds)
        yield
        os.unlink(HERE / "inside")
"""


@pytest.fixture
def locks(tmp_path_factory, monkeypatch):
    """A folder of locks that no other run on this machine uses."""
    folder = tmp_path_factory.mktemp("locks")
    monkeypatch.setenv("GPUCLEAN_LOCKS", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


@pytest.fixture
def exclusive(suite, locks):
    """An inner suite in whose tests `with inside():` fails where another one is inside."""
    suite.pytester.makeconftest("")
    suite.pytester.makepyfile(inside=INSIDE)

    def write(text, **more):
        suite.write(text, header="import os, time\nimport pytest\nfrom inside import HERE, inside\n", **more)
        return suite

    return write


@pytest.fixture
def cards(suite):
    """Let the machine have such cards."""

    def has(cards):
        source = Path(__file__).with_name("fakecards.py").read_text(encoding="utf-8")
        suite.pytester.makepyfile(fakecards=source)
        suite.pytester.makeconftest(f"""
            from fakecards import NVML, FakeNvml

            def pytest_configure(config):
                config.stash[NVML] = FakeNvml({cards})
        """)

    return has


class Holder:
    """Another process of the machine that has a lock."""

    def __init__(self, folder, key="any"):
        code = (
            "import sys\nfrom pytest_gpuclean.processes.device_locks import DeviceLocks\n"
            "locks = DeviceLocks(sys.argv[1], [(sys.argv[2], 'x')], print)\n"
            "print(locks.take('test_other.py::test_long', 0), flush=True)\nsys.stdin.readline()"
        )
        command = [sys.executable, "-c", code, str(folder), key]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def holder(locks):
    started = []

    def start(key="any"):
        started.append(Holder(locks, key))
        return started[-1].process.pid

    yield start
    for one in started:
        one.end()


MANY = """
    @pytest.mark.gpu_exclusive
    @pytest.mark.parametrize("number", range(8))
    def test_it(number):
        with inside():
            pass
"""


@pytest.mark.parametrize("workers", [[], ["-p", "xdist", "-n0"], XDIST], ids=["none", "n0", "n2"])
def test_workers_run_such_tests_one_at_a_time(exclusive, workers):
    if workers:
        pytest.importorskip("xdist")
    exclusive(MANY).run_apart(*workers).assert_outcomes(passed=8)


def test_without_the_marker_they_do_not(exclusive):
    """Else the test above would show nothing."""
    pytest.importorskip("xdist")
    result = exclusive(MANY.replace("@pytest.mark.gpu_exclusive", "")).run_apart(*XDIST, "--dist=each")
    assert result.parseoutcomes().get("failed", 0) >= 1


def test_two_runs_run_them_one_at_a_time(exclusive, suite):
    exclusive(MANY)
    # The file alone: in a folder, pytest 7.4 trips over the other run's file that comes and goes.
    command = [sys.executable, "-m", "pytest", str(suite.pytester.path / "test_it.py")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        out, _ = run.communicate(timeout=60)
        assert "8 passed" in out


def test_it_is_held_from_before_setup_to_after_teardown(exclusive):
    pytest.importorskip("xdist")
    suite = exclusive("""
        @pytest.fixture
        def around():
            with inside(0.02):
                yield

        @pytest.mark.gpu_exclusive
        @pytest.mark.parametrize("number", range(8))
        def test_it(around, number):
            time.sleep(0.02)
    """)
    suite.run_apart(*XDIST).assert_outcomes(passed=8)


def test_it_is_held_from_before_anybodys_clock_starts_until_the_leak_is_judged(suite, locks):
    suite.pytester.makepyfile(
        whoever="""
        import os
        from pytest_gpuclean.processes.device_locks import DeviceLocks

        def is_free():
            pid = os.fork()
            if pid == 0:
                found = DeviceLocks(os.environ["GPUCLEAN_LOCKS"], [("any", "any")], print).take("child", 0)
                os._exit(0 if isinstance(found, float) else 1)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    """
    )
    suite.conftest("""
        from whoever import is_free

        def pytest_gpuclean_leak(item, leak):
            print("AT JUDGEMENT", is_free())

        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_runtest_protocol(item):  # where pytest-timeout starts its clock
            print("AT THE START OF " + item.name, is_free())
            yield
    """)
    suite.write("""
        @pytest.mark.gpu_exclusive
        def test_it():
            KEPT.append(allocate(4 * MiB))

        def test_next():
            from whoever import is_free
            assert is_free()
    """)
    result = suite.run_apart("-s", "--gpu-leak=fail")
    result.assert_outcomes(passed=2, errors=1)
    assert "AT JUDGEMENT False" in result.stdout.str()
    assert "AT THE START OF test_it False" in result.stdout.str()
    assert "AT THE START OF test_next True" in result.stdout.str()


def test_other_tests_do_not_wait_for_it(exclusive, holder):
    holder()
    suite = exclusive("""
        def test_other():
            pass
    """)
    suite.run_apart().assert_outcomes(passed=1)


def test_after_so_much_waiting_the_test_fails_and_says_who_has_it(exclusive, holder):
    pid = holder()
    suite = exclusive("""
        @pytest.fixture(autouse=True)
        def never():
            raise OSError("came up")

        @pytest.mark.gpu_exclusive(timeout=0.3)
        def test_it():
            pass
    """)
    result = suite.run_apart()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            (
                "gpuclean: gpu_exclusive: the accelerator of this machine was not free within 300 ms: "
                f"pid {pid} for * (test_other.py::test_long) has it; wait longer: *"
            )
        ]
    )
    result.stdout.no_fnmatch_line("*came up*")


def test_a_long_wait_is_told_in_the_middle_of_the_run(exclusive, holder):
    pid = holder()
    result = exclusive("""
        @pytest.mark.gpu_exclusive("1.3s")
        def test_it():
            pass
    """).run_apart()
    result.stdout.fnmatch_lines([f"gpuclean: waiting for the accelerator of this machine, which pid {pid} for *"])


def test_a_dead_holder_holds_nobody_back(exclusive, holder):
    os.kill(holder(), signal.SIGKILL)
    exclusive(MANY).run_apart().assert_outcomes(passed=8)


def test_a_test_that_dies_lets_go(exclusive):
    pytest.importorskip("xdist")
    suite = exclusive("""
        @pytest.mark.gpu_exclusive(timeout=60)
        @pytest.mark.parametrize("number", range(4))
        def test_it(number):
            if number == 1:
                os._exit(3)
    """)
    result = suite.run_apart(*XDIST)
    assert result.parseoutcomes() == {"passed": 3, "failed": 1}


def test_a_child_that_a_test_has_forked_does_not_keep_it(exclusive):
    suite = exclusive("""
        @pytest.mark.gpu_exclusive(timeout=20)
        def test_forks():
            pid = os.fork()
            if pid == 0:
                time.sleep(30)
                os._exit(0)
            (HERE / "child").write_text(str(pid))

        @pytest.mark.gpu_exclusive(timeout=20)
        def test_next():
            pass
    """)
    begin = time.monotonic()
    result = suite.run_apart("-W", "ignore::DeprecationWarning")
    os.kill(int((suite.pytester.path / "child").read_text()), signal.SIGKILL)
    result.assert_outcomes(passed=2)
    assert time.monotonic() - begin < 20


def test_a_skipped_test_waits_for_nobody(exclusive, holder):
    holder()
    result = exclusive("""
        @pytest.mark.skip
        @pytest.mark.gpu_exclusive
        def test_it():
            pass
    """).run_apart()
    result.assert_outcomes(skipped=1)


def test_all_reruns_of_a_test_have_it_once(exclusive):
    pytest.importorskip("pytest_rerunfailures")
    suite = exclusive("""
        @pytest.mark.gpu_exclusive
        def test_it():
            with inside(0):
                pass
            count = HERE / "count"
            count.write_text(str(int(count.read_text() if count.exists() else 0) + 1))
            assert count.read_text() == "2"
    """)
    result = suite.run_apart("-p", "rerunfailures", "--reruns=2")
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}


# -- which device -----------------------------------------------------------------------------------------------------

TWO_TESTS = """
    @pytest.mark.gpu_exclusive(timeout=0.2)
    def test_it():
        pass
"""


@pytest.mark.parametrize(
    ("visible", "held", "is_free"),
    [
        (None, "GPU-00000000-fake", False),
        (None, "GPU-00000001-fake", False),
        (None, "GPU-00000002-fake", True),
        ("1", "GPU-00000000-fake", True),
        ("1", "GPU-00000001-fake", False),
        ("GPU-00000001", "GPU-00000001-fake", False),
        ("0,1", "any", True),
    ],
)
def test_the_visible_cards_count(exclusive, cards, holder, monkeypatch, visible, held, is_free):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cards("24, 24")
    holder(held)
    result = exclusive(TWO_TESTS).run_apart()
    result.assert_outcomes(passed=is_free, errors=not is_free)


@pytest.mark.parametrize(
    ("visible", "held", "is_free"),
    [("2", "index-2", False), ("2", "index-3", True), ("2,3", "index-3", False), ("GPU-8f6c", "GPU-8f6c", False)],
)
def test_without_a_driver_what_the_variable_says_counts(exclusive, cards, holder, monkeypatch, visible, held, is_free):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cards("reason='no driver'")
    holder(held)
    result = exclusive(TWO_TESTS).run_apart()
    result.assert_outcomes(passed=is_free, errors=not is_free)


# -- where nothing can be locked --------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [[], XDIST], ids=["none", "n2"])
def test_where_nothing_can_be_locked_tests_run_and_that_is_told_once(exclusive, monkeypatch, workers):
    if workers:
        pytest.importorskip("xdist")
    monkeypatch.setenv("GPUCLEAN_LOCKS", "/nowhere/at/all")
    result = exclusive(MANY.replace("with inside():", "if True:")).run_apart(*workers)
    result.assert_outcomes(passed=8)
    line = "gpu_exclusive holds nobody back: GPUCLEAN_LOCKS='/nowhere/at/all' is no folder"
    assert result.outlines.count(line) == 1


def test_a_link_in_the_place_of_a_lock_is_told_and_left_alone(exclusive, locks, tmp_path):
    target = tmp_path / "precious"
    target.write_text("precious")
    (locks / "gpuclean-any.lock").symlink_to(target)
    result = exclusive(TWO_TESTS).run_apart()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["gpu_exclusive holds nobody back: * is a link"])
    assert target.read_text() == "precious"


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("gpu_exclusive(timeout='soon')", "timeout: 'soon' is no time"),
        ("gpu_exclusive(timeout=-1)", "timeout: -1 is no time"),
        ("gpu_exclusive(device=1)", "device does not fit gpu_exclusive(timeout=3600)"),
        ("gpu_exclusive(1, 2)", "2 arguments does not fit"),
    ],
)
def test_a_marker_that_does_not_parse_is_refused(suite, marker, says):
    suite.write(f"""
        @pytest.mark.{marker}
        def test_it():
            print("RAN")
    """)
    result = suite.run("-s")
    text = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"@pytest.mark.gpu_exclusive on test_it.py::test_it: {says}" in text
    assert "RAN" not in text
