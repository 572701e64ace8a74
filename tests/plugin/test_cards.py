"""GPU memory of the processes that a test leaves: told, judged, and waited for. The driver is a stand-in."""

import os
import signal
from pathlib import Path

import fakenvml
import pytest
from fakenvml import World

REASON = fakenvml.unavailable_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no stand-in for the driver: {REASON}")

MiB = 1024**2
GiB = 1024**3
TESTS = Path(__file__).parents[1]

STARTING = """
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

USER = '''
import os, sys, time
for line in sys.argv[1:]:
    with open(os.environ["GPUCLEAN_SIMGPU_USE"] + f"/use.{os.getpid()}", "a") as file:
        print(line.replace(":", " "), file=file)
print("up", flush=True)
time.sleep(100)
'''


def use_gpu(*lines, **options):
    child = subprocess.Popen([sys.executable, "-c", USER, *lines], stdout=subprocess.PIPE, **options)
    child.stdout.readline()
    Path("pids").open("a").write(f"{child.pid}\\n")
    return child
"""


@pytest.fixture
def cards(suite, monkeypatch, hears_sigint):
    """An inner suite on a machine with two cards, in a process of its own; what it has started ends at the end."""
    world = World(suite.pytester.path).card("GPU-a", used=GiB).card("GPU-b").published().write()
    for name, value in world.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    suite.world = world
    suite.begin = lambda text: suite.write(text, header=STARTING)
    suite.go = lambda *arguments: suite.run_apart("--gpu-clean=quick", *arguments, settle=True)
    yield suite
    pids = suite.pytester.path / "pids"
    for pid in pids.read_text().split() if pids.exists() else ():
        if os.path.exists(f"/proc/{pid}"):
            os.kill(int(pid), signal.SIGKILL)


def test_a_child_that_held_gpu_memory_is_a_leak_of_the_test_that_left_it(cards):
    cards.begin("""
        def test_before(): pass
        def test_leaves(): use_gpu(f"0:{512 * 2**20}")
        def test_after(): pass
    """)
    result = cards.go()
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_leaves*",
            "gpuclean: leaked 512.0 MiB on cuda:0 in a child process (pid *, python -c *) (threshold 1.0 MiB)",
            "  still running when the test had ended, and by nvml it held that memory",
            "  end them in the test or in a fixture's teardown, or allow it: *",
            "STOPPED test_it.py::test_leaves: python -c * (pid *), 512.0 MiB of GPU memory: ended by SIGINT*",
        ]
    )
    assert "not back" not in result.stdout.str()


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        (["--gpu-leak=warn"], {"passed": 1, "warnings": 1}),
        (["--gpu-leak=report"], {"passed": 1}),
        (["--gpu-leak=off"], {"passed": 1}),
        (["--gpu-leak-threshold=1GiB"], {"passed": 1}),
        (["--gpu-leak-watch=host"], {"passed": 1}),
        (["--gpu-leak-watch=host", "--gpu-leak=fail"], {"passed": 1}),
        (["--gpu-processes=report"], {"passed": 1, "errors": 1}),
        (["--gpu-processes=off"], {"passed": 1}),
        (["--gpu-leak-confirm=1"], {"passed": 1, "errors": 1}),
    ],
    ids=" ".join,
)
def test_what_the_options_say_holds_for_it_too(cards, arguments, outcome):
    cards.begin("""
        def test_leaves(): use_gpu(f"0:{512 * 2**20}")
    """)
    result = cards.go(*arguments)
    result.assert_outcomes(**outcome)
    assert ("--gpu-leak=off" in arguments) <= ("leaked" not in result.stdout.str())


def test_a_leak_of_a_child_may_be_allowed(cards):
    cards.begin("""
        @pytest.mark.gpu_leak(allow="a server that stays")
        def test_leaves(): use_gpu(f"0:{512 * 2**20}")
    """)
    result = cards.go()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["ALLOWED test_it.py::test_leaves: leaked 512.0 MiB on cuda:0 in a child process *"])


def test_several_children_are_one_leak_a_device(cards):
    cards.begin("""
        def test_leaves():
            for size in (300, 400):
                use_gpu(f"0:{size * 2**20}", f"1:{2**20}")
            use_gpu("1:10")
    """)
    result = cards.go()
    result.stdout.fnmatch_lines(
        [
            "gpuclean: leaked 700.0 MiB on cuda:0 in 2 child processes (pid *; pid *) (threshold 1.0 MiB)",
            "gpuclean: leaked 2.0 MiB on cuda:1 in 3 child processes (pid *; pid *; pid *) (threshold 1.0 MiB)",
        ]
    )


def test_a_child_of_a_live_fixture_is_no_leak_and_one_of_an_ended_fixture_is(cards):
    cards.begin("""
        @pytest.fixture(scope="module")
        def server():
            return use_gpu(f"0:{512 * 2**20}")
        def test_uses(server): pass
        def test_uses_again(server): pass
    """)
    result = cards.go()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_uses_again*",
            "gpuclean: leaked 512.0 MiB on cuda:0 in a child process (pid *), started by fixture 'server' *",
        ]
    )


def test_a_worker_of_xdist_tells_it_to_its_controller(cards):
    pytest.importorskip("xdist")
    cards.begin("""
        def test_leaves(): use_gpu(f"0:{512 * 2**20}")
        def test_other(): pass
    """)
    result = cards.go("-p", "xdist", "-n2")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "gpuclean: leaked 512.0 MiB on cuda:0 in a child process (pid *, python -c *) (threshold 1.0 MiB)",
            "LEAK test_it.py::test_leaves: leaked 512.0 MiB on cuda:0 in a child process *",
        ]
    )


def test_a_child_that_the_test_ends_is_no_leak(cards):
    cards.begin("""
        def test_ends():
            child = use_gpu(f"0:{512 * 2**20}")
            child.kill()
            child.wait()
    """)
    cards.go().assert_outcomes(passed=1)


def test_a_child_on_a_card_that_cuda_does_not_see_here_is_told_by_its_number(cards, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    cards.begin("""
        def test_leaves(): use_gpu(f"0:{512 * 2**20}", f"1:{256 * 2**20}")
    """)
    result = cards.go()
    result.stdout.fnmatch_lines_random(["*leaked 512.0 MiB on GPU 0 in a *", "*leaked 256.0 MiB on cuda:0 in a *"])


def test_what_others_do_on_the_card_is_nobodys_leak(cards):
    cards.world.process(os.getpid(), 20 * GiB).process(1, 5 * GiB).write()
    cards.begin("""
        def test_leaves(): subprocess.Popen(["sleep", "100"])
    """)
    result = cards.go()
    result.assert_outcomes(passed=1)
    assert "GPU memory" not in result.stdout.str()


def test_a_figure_that_the_driver_does_not_give_is_no_leak_and_not_zero(cards):
    cards.begin("""
        def test_leaves():
            child = subprocess.Popen(["sleep", "100"])
            from fakenvml import World
            World(Path(".").resolve()).card("GPU-a").process(child.pid, None).write()
    """)
    result = cards.go()
    result.assert_outcomes(passed=1)
    assert "of GPU memory" not in result.stdout.str()


VICTIM = """
def test_victim():
    use_gpu("1:3221225472", "0:536870912")
    raise type("OutOfMemoryError", (RuntimeError,), {"__module__": "torch"})("CUDA out of memory.%s")
"""


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            " GPU 1 has",
            ["*free on cuda:1; other processes use it: pid * python -c * (user *): 3.0 GiB", "*hold the most*"],
        ),
        ("", ["*free on cuda:0; other*: 512.0 MiB", "*free on cuda:1; other*: 3.0 GiB", "*hold the most*"]),
    ],
)
def test_a_victim_is_told_what_other_processes_hold(cards, words, lines):
    cards.begin(VICTIM % words)
    result = cards.go()
    result.assert_outcomes(failed=1, errors=1)  # what it started holds is its leak
    result.stdout.fnmatch_lines(["gpuclean: ran out of memory on cuda*", *lines])
    if words:
        assert "free on cuda:0" not in result.stdout.str()


def test_a_victim_is_told_of_no_card_where_its_error_speaks_of_another_sort(cards):
    cards.begin(VICTIM.replace("CUDA out of memory.%s", "XPU out of memory"))
    result = cards.go()
    result.stdout.fnmatch_lines(["gpuclean: ran out of memory on xpu"])
    assert "are free on" not in result.stdout.str()


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("nvmlInit", 9),
        ("nvmlInit", 999),
        ("nvmlDeviceGetCount", 1),
        ("nvmlDeviceGetCount", 15),
        ("nvmlDeviceGetComputeRunningProcesses", 15),
    ],
)
def test_trouble_of_the_driver_changes_no_outcome(cards, function, code):
    cards.world.error(function, code).write()
    cards.begin("""
        def test_leaves(): use_gpu(f"0:{512 * 2**20}")
        def test_after(): pass
    """)
    result = cards.go()
    result.assert_outcomes(passed=2)
    gap = f"not measured: GPU memory of processes that were left: {function}*failed: * (NVML error {code})"
    result.stdout.fnmatch_lines(["STOPPED test_it.py::test_leaves: python -c *", gap])


def test_a_driver_that_hangs_costs_one_wait_and_no_outcome(cards):
    cards.world.delay("nvmlDeviceGetCount", 20).write()
    cards.begin("""
        def test_leaves(): use_gpu(f"0:{512 * 2**20}")
        def test_leaves_again(): use_gpu(f"0:{512 * 2**20}")
    """)
    result = cards.go()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["not measured: *: the driver did not answer nvmlDeviceGetCount within *"])
    assert result.duration < 15


# -- memory that comes back late -------------------------------------------------------------------------------------

LATE = """
from fakenvml import World

def hold_back(seconds, size=512 * 2**20):
    '''Let the driver free the memory of what ends later.'''
    child = use_gpu()
    folder = Path(".").resolve()
    world = World(folder).card("GPU-a", used=2**30).process(child.pid, size).process(os.getppid(), 2**30)
    world.write()
    code = f'''
import os, time
from pathlib import Path
from fakenvml import World
def gone():
    try:
        return open("/proc/{child.pid}/stat").read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
while not gone():
    time.sleep(0.001)
World(Path({str(folder)!r})).card("GPU-a", used=2**30 + {size}).process({os.getppid()}, 2**30).write()
time.sleep({seconds})
Path("back").write_text(str(time.time()))  # before it is seen
World(Path({str(folder)!r})).card("GPU-a", used=2**30).process({os.getppid()}, 3 * 2**30).write()
'''
    subprocess.Popen(["setsid", sys.executable, "-c", code], env={**os.environ, "GPUCLEAN_KEEP": "1"})
"""


def test_what_comes_back_late_is_waited_for_and_no_longer(cards):
    cards.begin(f"""{LATE}
def test_leaves(): hold_back(0.5)
def test_after():
    assert Path("back").exists()
    Path("began").write_text(str(time.time()))
    """)
    result = cards.go("--gpu-leak=report")
    result.assert_outcomes(passed=2)
    assert "not back" not in result.stdout.str()
    back, began = (float((cards.pytester.path / name).read_text()) for name in ("back", "began"))
    assert 0 <= began - back < 5, "it waited for its bound of 10 s"


def test_at_the_bound_it_is_told_what_is_missing_and_who_uses_the_card(cards):
    cards.begin(f"""{LATE}
def test_leaves(): hold_back(4)
def test_after(): assert not Path("back").exists()
    """)
    result = cards.go("--gpu-leak=report", "--gpu-settle=1")
    result.assert_outcomes(passed=2)
    missing = f"512.0 MiB on cuda:0, where pid {os.getpid()} * (user *): 1.0 GiB uses it"
    told = (
        f"TROUBLE test_it.py::test_leaves: GPU memory of processes that have ended is not back after 1.0* s: {missing}"
    )
    result.stdout.fnmatch_lines([told])


SCRIPT = """
import time
from pytest_gpuclean import cleanup_between_runs, watch

def clean(wait_time=None):
    global RESULT
    RESULT = cleanup_between_runs(0, 2, comprehensive=False, wait_time=wait_time, verbose=True)
    return {step.name: step.detail for step in RESULT.steps}

with watch(verbose=False):
"""


def in_script(cards, text):
    cards.pytester.makepyfile(script=f"{STARTING}\n{LATE}\n{SCRIPT}{text}")
    result = cards.pytester.runpython(cards.pytester.path / "script.py")
    assert result.ret == 0
    return result


def test_between_the_runs_of_a_script_what_comes_back_late_is_waited_for_too(cards):
    in_script(
        cards,
        """
    hold_back(0.5)
    said = clean()
    assert Path("back").exists(), said
    assert time.time() - float(Path("back").read_text()) < 5  # of a bound of 10
    assert "512.0 MiB of GPU memory" in said["processes"]
""",
    )


def test_a_script_is_told_what_is_not_back_in_the_time_it_gave(cards):
    in_script(
        cards,
        """
    hold_back(4)
    said = clean(wait_time=0.5)
    assert not Path("back").exists()
    assert "not back after" in said["wait"] and "512.0 MiB on cuda:0" in said["wait"], said
""",
    )


# -- what no framework accounts for ----------------------------------------------------------------------------------

FRAMEWORK = """
from pytest_gpuclean import Reading

class Framework:
    source = "framework"
    def read(self):
        yield Reading(device="cuda:0", source=self.source, allocated_bytes=100 * 2**20, reserved_bytes=200 * 2**20)
    def reset_peak(self): pass

def pytest_gpuclean_probes():
    return [Framework()]
"""


@pytest.mark.parametrize(
    ("arguments", "process", "line"),
    [
        ([], "own", ""),
        (["-v"], "own", "cuda:0: 500.0 MiB of this process in no framework's books (*"),
        (
            ["-v"],
            "other",
            "cuda:0: beyond the frameworks' books: not measured, the driver does not list this process *",
        ),
        (["-v"], "none", "cuda:0: beyond the frameworks' books: not measured, the driver lists no process on *"),
    ],
)
def test_the_rest_of_ones_own_memory_is_told_under_v(cards, arguments, process, line):
    cards.conftest(FRAMEWORK)
    cards.begin(f"""
        def test_uses():
            from fakenvml import World
            pid = dict(own=os.getpid(), other=os.getppid(), none=0)[{process!r}]
            world = World(Path(".").resolve()).card("GPU-a", used=2**30)
            (world.process(pid, 700 * 2**20) if pid else world).write()
    """)
    result = cards.go(*arguments)
    result.assert_outcomes(passed=1)
    if line:
        result.stdout.fnmatch_lines([line])
    else:
        result.stdout.no_fnmatch_line("*books*")


# -- nothing where nothing is asked ----------------------------------------------------------------------------------


def test_a_run_that_leaves_nothing_never_loads_nvidia_ml_py(cards):
    cards.begin("""
        def test_starts_and_ends():
            use_gpu(f"0:{512 * 2**20}").kill()
        def test_loads_nothing(): assert "pynvml" not in sys.modules
    """)
    cards.conftest("""
        import atexit, sys
        def pytest_unconfigure(): print("loaded:", "pynvml" in sys.modules)
    """)
    result = cards.go("-s")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["loaded: False"])


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a driver here")
def test_without_a_driver_nothing_new_is_said_and_nothing_loaded(cards, monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH")
    cards.begin("""
        def test_leaves(): use_gpu(f"0:{512 * 2**20}")
        def test_loads_nothing(): assert "pynvml" not in sys.modules
    """)
    result = cards.go()
    result.assert_outcomes(passed=2)
    assert "nvml" not in result.stdout.str().lower()
    assert "not measured" not in result.stdout.str()
