"""What a test leaves running is stopped at its end, told by name, and nobody else is touched."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.model.records import TestRecord
from pytest_gpuclean.plugin.outcome import Verdicts
from pytest_gpuclean.plugin.settings import Settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the cases are Linux processes")

STARTING = """
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest


def sleep(name, seconds=100, **options):
    process = subprocess.Popen(["sleep", str(seconds)], **options)
    note(name, process.pid)
    return process


def note(name, pid):
    Path(f"pid-{name}").write_text(str(pid))
"""


@pytest.fixture
def world(suite, monkeypatch, hears_sigint):
    """An inner suite in a process of its own, and what it has started: ended at the end, by pid."""
    scripts = os.path.dirname(sys.executable)
    monkeypatch.setenv("PATH", os.pathsep.join([scripts, os.environ.get("PATH", "")]))
    suite.pid = lambda name: int((suite.pytester.path / f"pid-{name}").read_text())
    suite.is_alive = lambda name: is_alive(suite.pid(name))
    suite.begin = lambda text, name="test_it": suite.write(text, name=name, header=STARTING)
    suite.go = lambda *arguments: suite.run_apart("--gpu-clean=quick", *arguments, settle=True)
    yield suite
    for file in suite.pytester.path.glob("pid-*"):
        if is_alive(int(file.read_text())):
            os.kill(int(file.read_text()), signal.SIGKILL)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def section(result):
    """The lines of the plugin's summary."""
    text = result.stdout.str()
    return text.partition("= gpuclean =")[2]


def test_what_a_test_leaves_is_stopped_and_told(world):
    world.begin("""
        def test_leaves():
            sleep("left", start_new_session=True)
        def test_waits():
            sleep("waited", seconds=0.1).wait()
        def test_goes_soon():
            sleep("soon", seconds=0.05)
        def test_after():
            left = Path("/proc", Path("pid-left").read_text(), "stat")
            assert not left.exists() or ") Z " in left.read_text()
    """)
    result = world.go()
    result.assert_outcomes(passed=4)
    assert not world.is_alive("left")
    stopped = [line for line in section(result).splitlines() if line.startswith("STOPPED")]
    assert len(stopped) == 1
    assert re.match(r"STOPPED test_it.py::test_leaves: sleep \(pid \d+\): ended by SIGINT after ", stopped[0])


def test_fail_fails_the_test_that_left_it_and_keeps_its_own_failure(world):
    world.begin("""
        def test_leaves():
            sleep("left")
        def test_fails_too():
            sleep("too")
            assert False, "its own reason"
        def test_clean():
            pass
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=2, failed=1, errors=2)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaves*", "gpuclean: left 1 process running"])
    result.stdout.fnmatch_lines(["*its own reason*"])


def test_report_stops_nothing_and_tells_once(world):
    world.begin("""
        def test_leaves():
            sleep("left", seconds=30)
        def test_after():
            pass
    """)
    result = world.go("--gpu-processes=report")
    result.assert_outcomes(passed=2)
    assert world.is_alive("left")
    assert section(result).count("it was left running") == 1


@pytest.mark.parametrize("arguments", [("--gpu-processes=off",), ("--gpu-clean=off",)])
def test_off_looks_at_nothing(world, arguments):
    world.begin("def test_leaves():\n    sleep('left', seconds=30)")
    result = world.run_apart("--gpu-clean=quick", *arguments)
    result.assert_outcomes(passed=1)
    assert world.is_alive("left")
    assert "GPUCLEAN_RUN" not in os.environ


def test_a_wider_fixture_keeps_what_it_started_until_it_ends(world):
    world.begin("""
        @pytest.fixture(scope="module")
        def server():
            yield sleep("server")

        @pytest.fixture(scope="module")
        def good():
            process = sleep("good")
            yield process
            process.terminate()
            process.wait()

        def test_first(server, good):
            assert server.poll() is None
        def test_second(server, good):
            assert server.poll() is None and good.poll() is None
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: fixture 'server' (module scope) left 1 process running"])
    assert not world.is_alive("server")
    assert "good" not in section(result)


def test_what_a_test_adds_to_a_fixtures_own_list_is_the_fixtures(world):
    world.begin("""
        @pytest.fixture(scope="module")
        def start():
            started = []
            def start(name):
                started.append(sleep(name))
                return started[-1]
            yield start
            for process in started:
                process.terminate()
                process.wait()

        def test_first(start):
            start("one")
        def test_second(start):
            assert start("two").poll() is None
            assert Path(f"/proc/{Path('pid-one').read_text()}").exists()
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=2)
    assert "STOPPED" not in result.stdout.str()


def test_what_a_test_adds_to_what_a_fixture_gives_a_proxy_of_is_the_fixtures(world):
    world.begin("""
        import weakref

        class Launch:
            def __init__(self):
                self.started = []

        @pytest.fixture(scope="module")
        def launch():
            launch = Launch()
            yield weakref.proxy(launch)
            for process in launch.started:
                process.terminate()
                process.wait()

        def test_first(launch):
            launch.started.append(sleep("one"))
        def test_second(launch):
            assert launch.started[0].poll() is None
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=2)
    assert "STOPPED" not in result.stdout.str()


def test_what_comes_up_below_a_fixtures_process_is_the_fixtures(world):
    world.begin("""
        SERVER = "\\n".join([
            "import subprocess, sys",
            "for line in sys.stdin:",
            "    print(subprocess.Popen(['sleep', '100']).pid, flush=True)",
        ])

        @pytest.fixture(scope="module")
        def server():
            pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            process = subprocess.Popen([sys.executable, "-c", SERVER], **pipes)
            yield process
            process.stdin.close()

        def ask(server):
            print(file=server.stdin, flush=True)
            return int(server.stdout.readline())

        def test_first(server):
            note("worker", ask(server))
        def test_second(server):
            assert Path(f"/proc/{Path('pid-worker').read_text()}").exists()
    """)
    result = world.go()
    result.assert_outcomes(passed=2)
    assert not world.is_alive("worker")
    assert "started by fixture 'server' (module scope)" in section(result)


def test_orphans_forks_and_trees_are_the_tests_that_started_them(world):
    world.begin("""
        def test_forks_twice():
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    note("fork", os.getpid())
                    time.sleep(100)
                os._exit(0)
            time.sleep(0.3)
        def test_without_environment():
            sleep("bare", env={})
        def test_tree():
            process = subprocess.Popen("sleep 100 & echo $! > pid-tree; trap '' TERM INT; sleep 100", shell=True)
            note("shell", process.pid)
            while not Path("pid-tree").exists() or not Path("pid-tree").read_text():
                time.sleep(0.01)
        def test_clean():
            pass
    """)
    result = world.go("--gpu-processes=fail", "--gpu-settle=3")
    result.assert_outcomes(passed=4, errors=3)
    assert not any(map(world.is_alive, ("fork", "bare", "tree", "shell")))


@pytest.mark.not_measured
def test_a_live_pool_is_shut_its_own_way(world):
    world.begin("""
        KEPT = []
        def square(x):
            return x * x
        def test_keeps_a_pool():
            pool = multiprocessing.get_context("fork").Pool(2)
            assert pool.map(square, [1, 2]) == [1, 4]
            KEPT.append(pool)
        def test_keeps_an_executor():
            from concurrent.futures import ProcessPoolExecutor
            executor = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"))
            assert list(executor.map(square, [1, 2])) == [1, 4]
            KEPT.append(executor)
        def test_after():
            import time
            end = time.monotonic() + 5  # the executor's thread is just about to note that its process has ended
            while multiprocessing.active_children() and time.monotonic() < end:
                time.sleep(0.01)
            assert not multiprocessing.active_children()
    """)
    result = world.go()
    result.assert_outcomes(passed=3)
    assert section(result).count("shut down with its pool") == 4
    assert "ended by" not in section(result)


def test_the_workers_of_an_older_pool_go_on(world):
    world.begin("""
        from concurrent.futures import ProcessPoolExecutor
        FORK = multiprocessing.get_context("fork")
        AT_IMPORT = ProcessPoolExecutor(2, mp_context=FORK)
        RENEWS = FORK.Pool(1, maxtasksperchild=1)
        KEPT = []

        @pytest.fixture(scope="module")
        def executor():
            KEPT.append(ProcessPoolExecutor(1, mp_context=FORK))
            yield KEPT[0]
            note("fixture", KEPT[0].submit(os.getpid).result())

        def work(name):
            note(name, AT_IMPORT.submit(os.getpid).result())
            assert RENEWS.apply(len, ["four"]) == 4

        def test_starts_its_workers(executor):
            work("first")
            executor.submit(os.getpid).result()
            KEPT.append(ProcessPoolExecutor(1, mp_context=FORK))
            note("own", KEPT[1].submit(os.getpid).result())
        def test_finds_them_alive(executor):
            work("second")
            executor.submit(os.getpid).result()
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=2, errors=2)
    told = [line for line in section(result).splitlines() if line.startswith("STOPPED")]
    assert len(told) == 2
    assert "test_starts_its_workers" in told[0] and "started by fixture 'executor'" in told[1]
    assert not any(map(world.is_alive, ("first", "second", "own", "fixture")))


def test_an_executor_is_older_than_the_test_that_gives_it_work_also_where_a_test_has_loaded_all_of_it(world):
    world.begin("""
        KEPT = []

        def test_makes_two():
            assert sys.modules.keys().isdisjoint(["multiprocessing.pool", "concurrent.futures.process"])
            from concurrent.futures import ProcessPoolExecutor
            fork = multiprocessing.get_context("fork")
            KEPT.extend(ProcessPoolExecutor(1, mp_context=fork) for _ in range(2))
            note("own", KEPT[0].submit(os.getpid).result())
        def test_gives_the_other_work():
            note("older", KEPT[1].submit(os.getpid).result())
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=2, errors=1)
    (told,) = (line for line in section(result).splitlines() if line.startswith("STOPPED"))
    assert "test_makes_two" in told


def test_a_worker_that_an_older_pool_renews_after_the_last_test_goes_on(world):
    world.conftest("""
        import os
        import time
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context
        from pathlib import Path
        import pytest

        AT_IMPORT = ProcessPoolExecutor(1, mp_context=get_context("fork"))
        RENEWS = get_context("fork").Pool(1, maxtasksperchild=1)

        @pytest.fixture(scope="module")
        def server():
            yield
            before = RENEWS.apply(os.getpid)
            Path("before").write_text(str(before))

        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionfinish():
            before = int(Path("before").read_text())
            while not RENEWS._pool or RENEWS._pool[0].pid == before:  # its thread looks ten times a second
                time.sleep(0.01)
            AT_IMPORT.submit(os.getpid).result()
    """)
    world.begin("""
        def test_first(server):
            pass
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=1)
    assert "STOPPED" not in result.stdout.str()


def test_a_worker_that_an_older_pool_is_just_about_to_enter_goes_on(world):
    world.begin("""
        import threading
        from multiprocessing.pool import Pool

        class Slow(list):
            def append(self, worker):
                time.sleep(0.005)
                super().append(worker)

        class SlowPool(Pool):
            def _repopulate_pool(self):
                if type(self._pool) is list:
                    self._pool = Slow(self._pool)
                super()._repopulate_pool()

        RENEWS = SlowPool(1, maxtasksperchild=1, context=multiprocessing.get_context("fork"))
        OVER = threading.Event()

        def go_on():
            while not OVER.is_set():
                RENEWS.apply(time.sleep, [0.02])

        THREAD = threading.Thread(target=go_on)
        THREAD.start()

        @pytest.mark.parametrize("number", range(6))
        def test_leaves_one(number):
            sleep(f"sleeper-{number}")
        def test_last():
            OVER.set()
            THREAD.join()
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=7, errors=6)
    assert section(result).count("STOPPED") == 6
    assert "forked" not in section(result)


def test_what_a_forkserver_starts_is_whose_it_was_started_for(world):
    world.begin("""
        CONTEXT = multiprocessing.get_context("forkserver")

        def work(queue):
            queue.put(os.getpid())
            time.sleep(100)
        def work_below(queue, asked):
            asked.get()
            CONTEXT.Process(target=work, args=(queue,)).start()
            time.sleep(100)
        def start(name):
            queue = CONTEXT.Queue()
            process = CONTEXT.Process(target=work, args=(queue,))
            process.start()
            note(name, queue.get())
            return process

        def test_brings_the_server_up():
            start("first")

        @pytest.fixture(scope="module")
        def worker():
            process = start("fixture")
            yield
            assert process.exitcode is None

        @pytest.fixture(scope="module")
        def below():
            queue, asked = CONTEXT.Queue(), CONTEXT.Queue()
            process = CONTEXT.Process(target=work_below, args=(queue, asked))
            process.start()
            note("above", process.pid)
            return queue, asked

        def test_with_a_worker_of_a_fixture(worker, below):
            start("second")
        def test_with_one_below_it(worker, below):
            below[1].put("go")
            note("below", below[0].get())
        def test_after(worker):
            assert Path(f"/proc/{Path('pid-below').read_text()}/cmdline").read_bytes()
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=4, errors=3)
    assert not any(map(world.is_alive, ("first", "second", "fixture", "above", "below")))
    told = section(result).splitlines()
    assert [line.split(":", 3)[2] for line in told if line.startswith("STOPPED")][:2] == [
        "test_brings_the_server_up",
        "test_with_a_worker_of_a_fixture",
    ]
    assert not any("started by test_it" in line for line in told)


def test_the_exit_code_of_a_live_popen_stays_true(world):
    world.begin("""
        KEPT = []
        def test_ends_with_7():
            KEPT.append(subprocess.Popen("sleep 0.2; exit 7", shell=True))
        def test_leaves():
            KEPT.append(sleep("left"))
        def test_after():
            assert KEPT[0].wait() == 7
            assert KEPT[1].wait() == -2
    """)
    world.go().assert_outcomes(passed=3)


def test_what_the_user_keeps_goes_on(world):
    world.begin("""
        def test_keeps():
            sleep("kept", seconds=30, env={**os.environ, "GPUCLEAN_KEEP": "1"})
        def test_disowns(gpu_clean):
            process = subprocess.Popen("sleep 30 & echo $! > pid-below; wait", shell=True)
            note("disowned", process.pid)
            while not Path("pid-below").exists() or not Path("pid-below").read_text():
                time.sleep(0.01)
            gpu_clean.disown(process.pid)
        def test_after():
            pass
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=3)
    assert all(map(world.is_alive, ("kept", "disowned", "below")))


def test_a_pid_that_is_not_the_runs_is_not_disowned(world):
    world.begin("""
        @pytest.mark.parametrize("pid", [1, os.getppid(), os.getpid(), 2**22 + 5, "12"])
        def test_refused(gpu_clean, pid):
            with pytest.raises(ValueError, match="no process that this run has started"):
                gpu_clean.disown(pid)
    """)
    world.go().assert_outcomes(passed=5)


def test_a_marker_alone_touches_only_what_its_own_test_starts(world):
    world.begin("""
        @pytest.fixture(scope="module")
        def server():
            yield sleep("server", seconds=30)
        def test_without(server):
            sleep("other", seconds=30)
        @pytest.mark.gpu_clean("quick")
        def test_marked(server):
            sleep("marked")
        def test_last(server):
            sleep("last", seconds=30)
    """)
    result = world.run_apart(settle=True)
    result.assert_outcomes(passed=3)
    assert not world.is_alive("marked")
    assert all(map(world.is_alive, ("server", "other", "last")))


def test_what_ran_before_the_run_is_left_alone(world):
    world.begin("""
        def test_leaves():
            sleep("left")
    """)
    innocent = subprocess.Popen(["sleep", "100"])
    command = "sleep 100 >/dev/null 2>&1 & echo $! > pid-before; exec " + " ".join(
        [sys.executable, "-m", "pytest", "-p", "gpuclean", "--gpu-clean=comprehensive", "-q"]
    )
    try:
        done = subprocess.run(command, shell=True, cwd=world.pytester.path, capture_output=True, text=True, check=False)
        assert "1 passed" in done.stdout, done.stdout + done.stderr
        assert not world.is_alive("left")
        assert world.is_alive("before")
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


@pytest.mark.parametrize("how", ["-x", "interrupt"])
def test_what_an_interrupted_run_leaves_is_stopped_at_its_end(world, how):
    world.begin(
        """
        @pytest.fixture(scope="session", autouse=True)
        def server():
            yield sleep("session")
        def test_interrupted():
            sleep("test")
            raise KeyboardInterrupt
    """.replace("raise KeyboardInterrupt", "assert 0" if how == "-x" else "raise KeyboardInterrupt")
    )
    world.go("-x")
    assert not any(map(world.is_alive, ("session", "test")))


def test_an_interrupt_of_the_user_is_not_held_up(world):
    world.begin("""
        def test_long():
            sleep("test")
            Path("begun").touch()
            time.sleep(60)
    """)
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "gpuclean", "--gpu-clean=quick", "-q"],
        cwd=world.pytester.path,
        stdout=subprocess.PIPE,
        text=True,
    )
    while not (world.pytester.path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert not world.is_alive("test")
    assert "STOPPED" in output


def test_a_family_of_others_is_stopped_its_own_way(world):
    world.conftest("""
        import signal
        class Quiet:
            name = "quiet server"
            first_signal = signal.SIGUSR1
            grace_seconds = 5.0
            tree_at_once = True
            goes_with_parent = False
            left_alone = ""
            until_run_ends = False
            spares_children = False
            def recognizes(self, command):
                return "quiet" in command.argv
            def after(self, stopped):
                return "its file is gone"
        def pytest_gpuclean_process_families(config):
            return [Quiet(), "no family"]
    """)
    world.begin("""
        CODE = "\\n".join([
            "import signal, sys, time",
            "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))",
            "print('ready', flush=True)",
            "time.sleep(100)",
        ])
        def test_leaves():
            process = subprocess.Popen([sys.executable, "-c", CODE, "quiet"], stdout=subprocess.PIPE, text=True)
            note("quiet", process.pid)
            assert process.stdout.readline() == "ready\\n"
    """)
    result = world.go()
    result.assert_outcomes(passed=1)
    assert re.search(
        r"STOPPED .*quiet server \(pid \d+\): ended by SIGUSR1 after .*; its file is gone", section(result)
    )
    assert "pytest_gpuclean_process_families: str is no Family" in section(result)


def test_without_a_subreaper_orphans_are_found_at_the_end_of_the_module(world):
    world.ini("gpu_subreaper = off")
    world.begin("""
        def test_orphan():
            subprocess.run("sleep 100 & echo $! > pid-orphan", shell=True, stdout=subprocess.DEVNULL)
        def test_after():
            pass
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=2, errors=1)
    assert not world.is_alive("orphan")
    assert "orphans are not adopted (switched off)" in result.stdout.str()
    assert "test_it.py::test_orphan" in section(result)


def test_without_a_subreaper_the_daemon_of_a_fixture_goes_on_to_its_end(world):
    world.ini("gpu_subreaper = off")
    world.conftest("""
        import subprocess

        @pytest.fixture(scope="session")
        def daemon():
            subprocess.run("sleep 100 & echo $! > pid-daemon", shell=True, stdout=subprocess.DEVNULL)
    """)
    world.begin("def test_one(daemon): pass", name="test_a")
    world.begin(
        """
        def test_two(daemon):
            assert Path(f"/proc/{Path('pid-daemon').read_text().strip()}/cmdline").read_bytes()
        """,
        name="test_b",
    )
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: fixture 'daemon' (session scope) left 1 process running"])
    assert not world.is_alive("daemon")


def test_bad_values_are_refused_by_name(world):
    world.begin("def test_it(): pass")
    result = world.run_apart("--gpu-processes=maim")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--gpu-processes: 'maim'*kill, fail, report*off*"])
    world.ini("gpu_subreaper = perhaps")
    result = world.run_apart("--gpu-clean=quick")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*gpu_subreaper in tox.ini: 'perhaps'*on*off*"])


@pytest.mark.skipif(find_spec("xdist") is None, reason="pytest-xdist is not installed")
class TestWorkers:
    def test_each_stops_its_own(self, world):
        for number in range(4):
            world.begin(
                f"""
                @pytest.mark.parametrize("i", range(3))
                def test_leaves(i):
                    sleep(f"left-{number}-{{i}}")
                    time.sleep(0.1)
                    assert Path(f"/proc/{{Path(f'pid-left-{number}-{{i}}').read_text()}}").exists()
                """,
                name=f"test_{number}",
            )
        result = world.go("-p", "xdist", "-n", "2")
        result.assert_outcomes(passed=12)
        assert section(result).count("STOPPED") == 12
        assert not any(world.is_alive(f"left-{n}-{i}") for n in range(4) for i in range(3))

    def test_a_worker_that_dies_leaves_nothing_and_holds_nobody_up(self, world, monkeypatch):
        temporary = world.pytester.mkdir("temporary")
        monkeypatch.setenv("TMPDIR", str(temporary))
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        world.begin("""
            def test_dies():
                sleep("child")
                if os.fork() == 0:  # it holds the pipe by which the controller would notice
                    note("fork", os.getpid())
                    time.sleep(100)
                    os._exit(0)
                while not Path("pid-fork").exists():
                    time.sleep(0.01)
                os._exit(3)
            @pytest.mark.parametrize("i", range(5))
            def test_others(i):
                time.sleep(0.1)
        """)
        result = world.go("-p", "xdist", "-n", "2")
        result.assert_outcomes(passed=5, failed=1)
        assert not any(map(world.is_alive, ("child", "fork")))
        assert result.duration < 60
        assert "STOPPED a worker that died: sleep" in section(result)
        (ledgers,) = temporary.glob("gpuclean-*")
        assert list(ledgers.iterdir()) == [], "the ledger of the dead worker is gone too"

    def test_daemons_of_dead_workers_are_no_zombies_of_the_run(self, world):
        world.begin("""
            @pytest.mark.parametrize("i", range(3))
            def test_dies(i):
                sleep(f"child-{i}")
                os._exit(3)
        """)
        world.pytester.makeconftest("""
            import os

            def pytest_unconfigure(config):
                if not hasattr(config, "workerinput"):
                    found = os.popen(f"ps -o stat=,args= --ppid {os.getpid()}").read().splitlines()
                    print("zombies:", [line for line in found if line.startswith("Z")])
        """)
        result = world.go("-p", "xdist", "-n", "1", "-s")
        result.assert_outcomes(failed=3)
        result.stdout.fnmatch_lines(["zombies: [[]]"])

    def test_what_a_dead_worker_leaves_is_told_where_nothing_is_stopped(self, world):
        world.begin("""
            def test_dies():
                sleep("child", seconds=30, stdout=subprocess.DEVNULL)
                os._exit(3)
        """)
        result = world.go("-p", "xdist", "-n", "1", "--gpu-processes=report")
        assert world.is_alive("child")
        assert re.search(r"LEFT a worker that died: sleep .*started by test_it.py::test_dies", section(result))


def test_workers_of_a_forkserver_are_found_in_every_test(world):
    world.begin("""
        def work(queue):
            queue.put(os.getpid())
            time.sleep(100)
        @pytest.mark.parametrize("i", range(3))
        def test_leaves(i):
            context = multiprocessing.get_context("forkserver")
            queue = context.Queue()
            process = context.Process(target=work, args=(queue,), daemon=True)
            process.start()
            note(i, queue.get())
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=3, errors=3)
    assert not any(world.is_alive(str(i)) for i in range(3))


def test_what_a_conftest_starts_between_tests_goes_on(world):
    world.conftest("""
        import subprocess
        from pathlib import Path
        def start(name):
            Path(f"pid-{name}").write_text(str(subprocess.Popen(["sleep", "30"]).pid))
        def pytest_collection_finish(session):
            start("collection")
        def pytest_runtest_logfinish(nodeid):
            if "first" in nodeid:
                start("between")
    """)
    world.begin("""
        IMPORTED = sleep("import", seconds=30)
        def test_first():
            time.sleep(0.05)
        def test_second():
            sleep("left")
        def test_third():
            assert IMPORTED.poll() is None
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=3, errors=1)
    assert not world.is_alive("left")
    assert all(map(world.is_alive, ("collection", "import", "between")))


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_a_data_loader_that_is_kept_works_again(world):
    world.begin("""
        from torch.utils.data import DataLoader
        KEPT = []
        def test_keeps_its_workers():
            KEPT.append(DataLoader(list(range(4)), num_workers=2, persistent_workers=True))
            assert len(list(KEPT[0])) == 4
        def test_after():
            assert not multiprocessing.active_children()
            assert len(list(KEPT[0])) == 4
        def test_in_a_garbage_cycle():
            loader = DataLoader(list(range(4)), num_workers=2)
            iterator = iter(loader)
            next(iterator)
            cycle = [iterator]
            cycle.append(cycle)
        def test_fails_with_it_in_its_frame():
            iterator = iter(DataLoader(list(range(4)), num_workers=2))
            next(iterator)
            assert 0
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=3, failed=1, errors=2)


def test_a_daemon_that_a_fixtures_process_leaves_late_is_the_fixtures(world):
    world.begin("""
        CODE = "import subprocess, time; time.sleep(.3); subprocess.Popen('sleep 100 & echo $! > pid-late', shell=True)"

        @pytest.fixture(scope="module")
        def server():
            yield subprocess.Popen([sys.executable, "-c", CODE])

        def test_first(server):
            while not Path("pid-late").exists() or not Path("pid-late").read_text():
                time.sleep(0.02)
            time.sleep(0.1)
        def test_second(server):
            assert Path("/proc", Path("pid-late").read_text().strip()).exists()
    """)
    result = world.go("--gpu-processes=fail")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: fixture 'server' (module scope) left 1 process running"])
    assert not world.is_alive("late")


def test_a_handler_of_the_test_that_raises_breaks_nothing_off(world):
    world.begin("""
        import signal
        def test_installs_a_handler_and_leaves():
            def complain(*_):
                raise RuntimeError("a worker ended")
            signal.signal(signal.SIGCHLD, complain)
            sleep("left")
        def test_after():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    """)
    result = world.go()
    result.assert_outcomes(passed=2)
    assert not world.is_alive("left")
    assert "STOPPED test_it.py::test_installs_a_handler_and_leaves: sleep" in section(result)
    assert "TROUBLE" not in result.stdout.str()


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
class TestTensorBoard:
    def test_one_by_its_manager_can_be_started_again(self, world):
        world.begin("""
            from tensorboard import manager
            @pytest.mark.parametrize("i", range(2))
            def test_starts(i):
                found = manager.start(["--logdir", "runs", "--port", "0", "--host", "127.0.0.1"])
                assert isinstance(found, manager.StartLaunched), found
                note(i, found.info.pid)
        """)
        world.pytester.mkdir("tmp")
        result = world.go("--gpu-processes=fail", "-s")
        result.assert_outcomes(passed=2, errors=2)
        assert not world.is_alive("0")
        assert not world.is_alive("1")
        assert re.search(r"TensorBoard \(pid \d+\), port \d+: ended by SIG", section(result))

    def test_one_inside_the_test_run_is_named_as_such(self, world):
        world.begin("""
            from tensorboard import program
            def test_launches():
                board = program.TensorBoard()
                board.configure(logdir="runs", port=0, host="127.0.0.1")
                board.launch()
        """)
        result = world.go()
        result.assert_outcomes(passed=1)
        assert "TensorBoard inside the test run" in section(result)
        assert "its web server is a thread of the test run" in section(result)

    def test_the_users_own_is_left_alone(self, world):
        mine = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", "--logdir", ".", "--port", "0", "--host", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            world.begin("""
                def test_has_its_own():
                    command = [sys.executable, "-m", "tensorboard.main", "--logdir", ".", "--port", "0"]
                    note("own", subprocess.Popen([*command, "--host", "127.0.0.1"]).pid)
                    time.sleep(2)
            """)
            result = world.go("--gpu-clean=comprehensive")
            result.assert_outcomes(passed=1)
            assert not world.is_alive("own")
            assert mine.poll() is None
        finally:
            mine.terminate()
            mine.wait()


class Item:
    """As much of a test as a verdict looks at."""

    def __init__(self):
        self.nodeid, self.stash = "test_it.py::test_a", pytest.Stash()
        self.config = SimpleNamespace(option=SimpleNamespace(verbose=0))


@pytest.mark.parametrize(
    ("mode", "values", "fails"),
    [
        (None, {"ended_by": "SIGKILL"}, False),
        (None, {"reason": "it is in uninterruptible sleep (D)"}, True),
        ("fail", {"ended_by": "itself"}, True),
        ("fail", {"is_spared": True}, False),
        ("report", {"is_spared": True}, False),
    ],
)
def test_what_a_test_fails_for(mode, values, fails):
    left = LeftProcess(pid=12, name="sleep", command="sleep 100", **values)
    record = TestRecord(test="test_it.py::test_a", left=(left,))
    told = Verdicts(Settings(threshold_bytes=1, level="quick", processes=mode)).tell(Item(), record)
    assert bool(told.failure) is fails
