"""Scripts that start processes and clean up: their own are stopped, and nobody else's is touched."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from processes.alone import alone, skip
from processes.starting import (
    end,
    is_alive,
    orphan_that_executes,
    orphan_that_forks,
    python,
    sleeper,
    standin,
    until_ready,
    wait_for,
)
from pytest_gpuclean.processes.left_runs import sweep

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are proved by /proc")

WAITS = "import signal\nsignal.alarm(100)\nprint('ready', flush=True)\nwhile True: signal.pause()\n"


def home():
    """Let ledgers lie where the test is."""
    os.environ.pop("XDG_RUNTIME_DIR", None)


def ledgers():
    return [path for folder in Path().glob("gpuclean-*") for path in folder.iterdir()]


def bag(name="bag_test.py"):
    """Start a Python script of this name."""
    Path(name).write_text(WAITS)
    return until_ready(subprocess.Popen([sys.executable, name], stdout=subprocess.PIPE, text=True))


def elsewhere(name="bag_test.py"):
    """Start a Python script that is not below this process and was not started by it, as far as anybody can tell."""
    Path(name).write_text(WAITS)
    return orphan_that_executes(sys.executable, name, environ={"PATH": os.environ["PATH"]})


def steps(result):
    return {step.name: step for step in result.steps}


def run_script(code, **options):
    """Run a script of its own; give what it said."""
    environ = {**os.environ, "TMPDIR": os.getcwd()}
    return subprocess.Popen(
        [sys.executable, "-c", f"import signal; signal.alarm(100)\nfrom processes.starting import *\n{code}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        **options,
    )


# -- watch() ----------------------------------------------------------------------------------------------------


@alone
def test_what_is_started_inside_is_stopped_and_what_was_there_before_is_not():
    home()
    from pytest_gpuclean import watch

    for is_first in (True, False):
        before = None if is_first else sleeper()
        with watch(verbose=False, name="training") as run:
            pids = [sleeper().pid, sleeper(preexec_fn=os.setsid).pid, orphan_that_executes(), orphan_that_forks()]
            # Where a process from before may have left an orphan, one without any mark is not believed.
            pids += [orphan_that_executes(environ={"PATH": os.environ["PATH"]})] if is_first else []
            assert len(ledgers()) == 1
            assert os.environ["GPUCLEAN_RUN"]
        assert [is_alive(pid) for pid in pids] == [False] * len(pids)
    assert {left.pid for left in run.left} == set(pids)
    assert {left.started_by for left in run.left} == {"training"}
    assert "processes" in steps(run.result)
    assert is_alive(before.pid)
    assert ledgers() == []
    assert "GPUCLEAN_RUN" not in os.environ, "importing watch() alone marks nothing"


@alone
def test_what_ends_in_the_block_is_not_told_and_costs_no_wait():
    home()
    from pytest_gpuclean import watch

    begin = time.monotonic()
    with watch(verbose=False) as run:
        sleeper().kill()
        subprocess.run(["true"])
    assert run.left == ()
    assert steps(run.result)["processes"].status == "skipped"
    assert time.monotonic() - begin < 5


@alone
def test_the_cleanup_functions_stop_it_in_between_too():
    home()
    from pytest_gpuclean import cleanup_between_runs, comprehensive_cleanup, quick_cleanup, watch

    outside = sleeper()
    with watch(verbose=False) as run:
        for index in range(3):
            here, orphan = sleeper(), orphan_that_executes()
            result = cleanup_between_runs(index, 4, comprehensive=index != 1, verbose=False)
            assert (here.wait(), is_alive(orphan)) == (-signal.SIGINT, False)
            assert f"sleep (pid {orphan}): ended by " in steps(result)["processes"].detail
            assert result.level == ("quick" if index == 1 else "comprehensive")
        for clean in (quick_cleanup, comprehensive_cleanup):
            last = sleeper()
            clean(0, False)
            assert last.poll() is not None
        kept = sleeper()
        result = cleanup_between_runs(3, 4)
        assert [step.detail for step in result.steps] == ["this was the last run"]
        assert is_alive(kept.pid)
    assert not is_alive(kept.pid)
    assert [left.pid for left in run.left] == [kept.pid]
    assert is_alive(outside.pid)


@alone
def test_what_is_kept_of_a_watch_goes_without_a_garbage_collection():
    home()
    from pytest_gpuclean import cleanup_between_runs, watch

    def run():
        with watch(verbose=False):
            cleanup_between_runs(0, 2, verbose=False)

    run()  # what is imported by that leaves garbage
    gc.collect()
    gc.disable()
    run()
    assert gc.collect() == 0


@alone
def test_an_inner_watch_has_what_was_started_since():
    home()
    from pytest_gpuclean import quick_cleanup, watch

    with watch(verbose=False):
        outer = sleeper()
        with watch(verbose=False):
            inner = sleeper()
            quick_cleanup(verbose=False)
            assert (is_alive(inner.pid), is_alive(outer.pid)) == (False, True)
            again = sleeper()
        assert (is_alive(again.pid), is_alive(outer.pid)) == (False, True)
    assert not is_alive(outer.pid)
    assert ledgers() == []


@alone
def test_what_is_disowned_or_to_be_kept_goes_on():
    home()
    from pytest_gpuclean import comprehensive_cleanup, force_kill_processes, watch

    kept = sleeper(env={**os.environ, "GPUCLEAN_KEEP": "1"})
    with watch(verbose=False), watch(verbose=False) as run:
        disowned = bag()
        marked = sleeper(env={**os.environ, "GPUCLEAN_KEEP": "1"})
        run.disown(disowned.pid)
        with pytest.raises(ValueError, match="no process that this run has started"):
            run.disown(kept.pid)
    comprehensive_cleanup(verbose=False)
    force_kill_processes(verbose=False)
    assert all(is_alive(process.pid) for process in (kept, disowned, marked))
    with pytest.raises(ValueError, match="no process that this watch"):
        run.disown(disowned.pid)


@alone
def test_as_a_decorator():
    home()
    from pytest_gpuclean import watch

    started = []

    @watch(verbose=False)
    def train(steps):
        """Train."""
        started.append(sleeper())
        if not steps:
            raise LookupError("no steps")
        return 2 * steps

    @watch(verbose=False)
    async def train_async(steps):
        started.append(sleeper())
        await asyncio.sleep(0)
        return steps

    @watch(verbose=False)
    def epochs(count):
        for number in range(count):
            started.append(sleeper())
            yield number
        return "done"

    assert [train(2), train(steps=3)] == [4, 6]
    with pytest.raises(LookupError):
        train(0)
    assert asyncio.run(train_async(5)) == 5
    running = epochs(2)
    next(running)
    assert is_alive(started[-1].pid)
    assert list(running) == [1]
    assert [process.poll() for process in started] == [-signal.SIGINT] * 6
    assert (train.__name__, train.__doc__) == ("train", "Train.")
    with pytest.raises(TypeError, match="asynchronous generator"):
        watch(verbose=False)(_never())
    with pytest.raises(TypeError, match="is no function"):
        watch("training")
    with pytest.raises(ValueError, match=r"watch\(\): level: 'full' is not one of quick, comprehensive"):
        watch(level="full")


def _never():
    async def numbers():
        yield 1

    return numbers


@alone
def test_a_bare_decorator_tells_what_it_did():
    home()
    done = run_script(
        "from pytest_gpuclean import watch\n@watch\ndef train():\n    print(sleeper().pid, flush=True)\ntrain()"
    )
    out, err = done.communicate(timeout=60)
    pid, *lines = out.splitlines()
    assert err == ""
    assert lines[0] == "gpuclean: end of train"
    assert lines[1].startswith("  before: cpu ")
    assert lines[2].startswith(f"  processes: ok: sleep (pid {pid}): ended by SIGINT after ")
    assert lines[-1].startswith("  after: cpu ")


@alone
def test_an_error_of_the_block_is_kept_and_a_fork_that_leaves_it_stops_nothing():
    home()
    from pytest_gpuclean import watch

    with pytest.raises(KeyError), watch(verbose=False):
        first = sleeper()
        raise KeyError
    assert not is_alive(first.pid)

    with watch(verbose=False):
        second = sleeper()
        child = os.fork()
        if child == 0:
            signal.alarm(100)
    if child == 0:
        os._exit(0 if is_alive(second.pid) and os.environ.get("GPUCLEAN_RUN") else 1)
    # The parent has stopped the child as its own, or it has ended by then; either way it has stopped nothing.
    assert not is_alive(second.pid)
    with watch(verbose=False):
        third = sleeper()
        child = os.fork()
        if child == 0:
            from pytest_gpuclean import quick_cleanup

            quick_cleanup(verbose=False)
            os._exit(0 if is_alive(third.pid) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert is_alive(third.pid)


@alone
def test_what_several_threads_start_cannot_be_told_apart_and_is_left_to_the_last():
    home()
    from pytest_gpuclean import quick_cleanup, watch

    inside, may_end = threading.Event(), threading.Event()
    seen = {}

    def other():
        with watch(verbose=False) as run:
            seen["process"] = sleeper()
            inside.set()
            may_end.wait(30)
        seen["left"] = run.left
        seen["result"] = run.result

    with watch(verbose=False) as outer:
        mine = sleeper()
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait(30)
        result = quick_cleanup(verbose=False)
        assert "another thread or task" in steps(result)["processes"].detail
        may_end.set()
        thread.join()
        assert seen["left"] == ()
        assert (is_alive(mine.pid), is_alive(seen["process"].pid)) == (True, True)
    assert {left.pid for left in outer.left} == {mine.pid, seen["process"].pid}
    assert not any(is_alive(process.pid) for process in (mine, seen["process"]))


@alone
def test_watches_of_tasks_that_end_out_of_order_take_everything_back():
    home()
    from pytest_gpuclean import watch

    async def task(seconds):
        with watch(verbose=False) as run:
            await asyncio.sleep(seconds)
        return run.left

    async def both():
        return await asyncio.gather(task(0.05), task(0.15))

    assert asyncio.run(both()) == [(), ()]
    assert "GPUCLEAN_RUN" not in os.environ
    assert ledgers() == []


SCRIPT = """
from pytest_gpuclean import watch
with watch():
    a, b = sleeper(), orphan_that_executes()
    print("ready", a.pid, b, flush=True)
    signal.pause()
"""


@alone
def test_ctrl_c_ends_the_script_and_what_it_had_started():
    home()
    script = until_ready(run_script(SCRIPT))
    script.send_signal(signal.SIGINT)
    out, err = script.communicate(timeout=60)
    assert [is_alive(int(pid)) for pid in script.said] == [False, False]
    assert "gpuclean: end of watch by KeyboardInterrupt" in out
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert script.returncode == -signal.SIGINT
    assert ledgers() == []


@alone
def test_a_second_ctrl_c_during_the_cleanup_leaves_nothing_behind_either():
    home()
    code = """
from pytest_gpuclean import watch
with watch():
    process = standin("stubborn.py", "ignore", "INT")
    print("ready", process.pid, flush=True)
    signal.pause()
"""
    script = until_ready(run_script(code))
    script.send_signal(signal.SIGINT)
    time.sleep(0.7)
    script.send_signal(signal.SIGINT)
    script.communicate(timeout=60)
    assert not is_alive(int(script.said[0]))
    assert ledgers() == []


@alone
def test_what_a_killed_script_left_is_known_by_its_ledger():
    home()
    script = until_ready(run_script(SCRIPT))
    script.kill()
    script.wait()  # not communicate(): what it has left holds its pipes
    folders = [os.path.abspath(folder) for folder in Path().glob("gpuclean-*")]
    assert [is_alive(int(pid)) for pid in script.said] == [True, True], folders
    found = sweep(settle_seconds=10, folders=folders)
    assert {left.pid for run in found.runs for left in run.processes} == {int(pid) for pid in script.said}
    assert [is_alive(int(pid)) for pid in script.said] == [False, False]


# -- outside of watch(), with the import changed alone -----------------------------------------------------------


@alone
def test_a_launch_and_scripts_of_the_script_are_stopped_and_everything_else_goes_on():
    from pytest_gpuclean import cleanup_between_runs

    launch = standin("ros2", "launch", "demo", "demo.launch.py")
    script, plain = bag(), sleeper()
    code = python("import signal; print('ready', flush=True); signal.pause()")
    orphaned = orphan_that_executes(sys.executable, "bag_test.py")
    stranger = elsewhere()
    wait_for(lambda: b"bag_test" in Path(f"/proc/{orphaned}/cmdline").read_bytes())
    result = cleanup_between_runs(0, 100, verbose=False)
    pids = [launch.pid, *map(int, launch.said), script.pid, orphaned]
    assert [is_alive(pid) for pid in pids] == [False] * len(pids)
    assert "ROS 2 launch" in steps(result)["ROS 2"].detail
    assert f"(pid {orphaned}): ended by SIGINT" in steps(result)["Python scripts"].detail
    assert [is_alive(pid) for pid in (plain.pid, code.pid, stranger)] == [True, True, True]
    end(stranger)


POOL = """
import multiprocessing, os, signal
signal.alarm(100)
from pytest_gpuclean import comprehensive_cleanup, force_kill_processes, kill_python_experiment_processes, quick_cleanup

def pid(_):
    return os.getpid()

with multiprocessing.get_context("fork").Pool(2) as pool:
    before = {process.pid for process in pool._pool}
    for clean in (quick_cleanup, comprehensive_cleanup, kill_python_experiment_processes, force_kill_processes):
        clean(verbose=False)
    force_kill_processes("experiment.py", verbose=False)
    assert set(pool.map(pid, range(8))) <= before
    assert {process.pid for process in pool._pool} == before
print("done")
"""


@alone
def test_a_pool_of_the_script_works_on():
    Path("experiment.py").write_text(POOL)  # its workers have the command line of a script, too
    done = subprocess.run([sys.executable, "experiment.py"], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("done\n", "")


@alone
def test_a_neighbour_in_the_same_session_is_not_taken_for_its_next_link():
    from pytest_gpuclean import kill_python_experiment_processes

    for name in ("first.py", "second.py"):
        Path(name).write_text(WAITS)
    code = f"{sys.executable} first.py > 1 & echo $!; {sys.executable} second.py > 2 & echo $!; wait"
    shell = subprocess.Popen(["sh", "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    first, second = (int(shell.stdout.readline()) for _ in range(2))
    for file in (Path("1"), Path("2")):  # one each: what they write at one moment may come out as one line
        wait_for(lambda file=file: file.exists() and file.read_text() == "ready\n", "a script", 30)
    kill_python_experiment_processes("first.py", verbose=False)
    assert [is_alive(pid) for pid in (shell.pid, first, second)] == [True, False, True]


@alone
def test_what_was_there_before_the_import_goes_on():
    early = bag()
    from pytest_gpuclean import quick_cleanup

    late = bag()
    quick_cleanup(verbose=False)
    assert (is_alive(early.pid), is_alive(late.pid)) == (True, False)


@alone
def test_others_are_named_and_stopped_only_where_that_is_said(capsys=None):
    from pytest_gpuclean import kill_python_experiment_processes

    name = f"bag_{os.urandom(8).hex()}.py"
    stranger, other = elsewhere(name), bag("other.py")
    wait_for(lambda: name.encode() in Path(f"/proc/{stranger}/cmdline").read_bytes())
    done = run_script(
        f"from pytest_gpuclean import kill_python_experiment_processes as kill\nkill({name!r})"
    ).communicate(timeout=60)[0]
    assert f"left alone, as this script has not started it: python {name[:10]}" in done
    assert f"(pid {stranger}); host_wide=True would stop it" in done
    result = kill_python_experiment_processes(name, verbose=False)
    assert "host-wide" not in steps(result)
    assert (is_alive(stranger), is_alive(other.pid)) == (True, True)
    result = kill_python_experiment_processes(name, verbose=False, host_wide=True)
    assert f"(pid {stranger}): ended by SIGINT" in steps(result)["host-wide"].detail
    assert (is_alive(stranger), is_alive(other.pid)) == (False, True)
    kill_python_experiment_processes(verbose=False)
    assert not is_alive(other.pid)
    with pytest.raises(ValueError, match="True does not say what"):
        kill_python_experiment_processes(host_wide=True)
    with pytest.raises(ValueError, match="names a path"):
        kill_python_experiment_processes("a/b.py")


@alone
def test_the_stubborn_ones_are_killed_at_once():
    from pytest_gpuclean import force_kill_processes, kill_ros2_processes

    Path("stubborn.py").write_text("""if True:
        import pathlib, signal
        signal.alarm(100)
        for name in ("SIGINT", "SIGTERM"):
            signal.signal(getattr(signal, name), lambda *_: pathlib.Path("asked").touch())
        print("ready", flush=True)
        while True:
            signal.pause()
    """)
    stubborn = until_ready(subprocess.Popen([sys.executable, "stubborn.py"], stdout=subprocess.PIPE, text=True))
    assert "skipped" in [step.status for step in kill_ros2_processes(verbose=False).steps]
    assert is_alive(stubborn.pid)
    result = force_kill_processes(verbose=False)
    assert "python stubborn.py" in steps(result)["Python scripts"].detail
    assert "ended by SIGKILL" in steps(result)["Python scripts"].detail
    assert stubborn.wait() == -signal.SIGKILL
    assert not Path("asked").exists()


@alone
def test_after_a_training_the_scripts_tensorboard_goes_and_its_other_servers_stay():
    from pytest_gpuclean import cleanup_training_resources

    Path("tensorboard").write_text(WAITS)
    Path("serve.py").write_text(WAITS)
    board, server = (
        until_ready(subprocess.Popen([sys.executable, name], stdout=subprocess.PIPE, text=True))
        for name in ("tensorboard", "serve.py")
    )
    result = cleanup_training_resources(verbose=False)
    assert (is_alive(board.pid), is_alive(server.pid)) == (False, True)
    assert "TensorBoard (pid " in steps(result)["TensorBoard"].detail


@alone
def test_callables_run_at_the_next_cleanup_and_one_that_fails_leaves_the_others():
    from pytest_gpuclean import on_cleanup, quick_cleanup

    calls = []
    script = bag()

    @on_cleanup
    def first():
        calls.append("first")

    @on_cleanup
    def breaks():
        calls.append("breaks")
        raise OSError("no")

    result = quick_cleanup(verbose=False)
    assert calls == ["breaks", "first"]
    assert [step.detail for step in result.failed] == ["OSError: no"]
    assert not is_alive(script.pid)
    quick_cleanup(verbose=False)
    assert calls == ["breaks", "first"]
    with pytest.raises(TypeError, match="is not callable"):
        on_cleanup(3)


@alone
def test_wrong_arguments_are_refused_before_anything_is_done():
    from pytest_gpuclean import cleanup_between_runs, comprehensive_cleanup, kill_ros2_processes, quick_cleanup

    script = bag()
    for call, said in (
        (lambda: quick_cleanup("soon"), r"quick_cleanup\(\): wait_time: 'soon' is no time"),
        (lambda: quick_cleanup(-1), "wait_time: -1 is no time"),
        (lambda: comprehensive_cleanup(host_wide=True), "True does not say what"),
        (lambda: cleanup_between_runs(0, "many"), "total_runs: 'many' is no count"),
        (lambda: cleanup_between_runs(0, 3, False, host_wide="ros2"), "host_wide takes comprehensive=True"),
        (lambda: kill_ros2_processes(host_wide="port:1"), "port:1 is not its business; it takes ros2"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    assert is_alive(script.pid)


@alone
def test_memory_of_the_machine_is_cleared_only_where_it_is_named():
    from unit.cleanup.fakesmi import FakeSmi

    from pytest_gpuclean import clear_gpu_memory, clear_system_cache, comprehensive_cleanup
    from pytest_gpuclean.cleanup.nvidia_smi import NvidiaSmi
    from pytest_gpuclean.cleanup.system import DropCachesCleaner, GpuResetCleaner, SystemCleaners
    from pytest_gpuclean.scripts.session import Session, begin

    kernel, smi = Path("drop_caches"), FakeSmi(Path.cwd())
    kernel.write_text("")
    reset = GpuResetCleaner(NvidiaSmi(os.fspath(smi.path)), [])
    begin(Session(system=SystemCleaners(DropCachesCleaner(os.fspath(kernel), lambda: None), reset)))

    for clean in (clear_gpu_memory, clear_system_cache):
        (step,) = clean(verbose=False).failed
        assert step.detail == "refused, as it reaches beyond this script: host_wide=True names it"
    comprehensive_cleanup(verbose=False)
    assert (kernel.read_text(), smi.calls) == ("", [])
    comprehensive_cleanup(verbose=False, host_wide="drop-caches")
    assert (kernel.read_text(), smi.calls) == ("3\n", [])
    assert steps(clear_gpu_memory(verbose=False, host_wide=True))["gpu-reset"].detail == "the GPUs were reset"
    assert steps(clear_gpu_memory(verbose=False, host_wide=True))["gpu-reset"].status == "skipped"
    assert smi.resets == 1
    kernel.write_text("")
    clear_system_cache(verbose=False, host_wide="drop-caches")
    assert kernel.read_text() == "3\n"


@alone
def test_the_figures_and_a_closed_stdout():
    from pytest_gpuclean import clear_gpu, clear_python_memory, get_memory_usage, snapshot

    assert [reading.source for reading in snapshot().readings] == ["heap"]
    sys.stdout = open(os.devnull, "w")
    sys.stdout.close()
    assert get_memory_usage().allocated_bytes("cpu") > 0
    cycle = []
    cycle.append(cycle)
    del cycle
    assert "objects collected" in steps(clear_python_memory())["garbage"].detail
    assert clear_gpu().failed == ()
    sys.stdout = sys.__stdout__


ON_A_DEVICE = """
import threading, time
import torch
import simgpu
reason = simgpu.unavailable_reason()
if reason:
    raise SystemExit(f"skip: {reason}")
simgpu.load()
from pytest_gpuclean import cleanup_between_runs, quick_cleanup

def take(device, size):
    return torch.ones(size * 2**20, dtype=torch.uint8, device=f"simgpu:{device}")

def hold():
    held = take(0, 64)
    has_begun.set()
    time.sleep(0.3)

model = take(0, 16)
quick_cleanup(verbose=False)
has_begun = threading.Event()
threading.Thread(target=hold).start()
has_begun.wait()
cycle = [take(1, 32)]
cycle.append(cycle)
del cycle
begin = time.monotonic()
result = cleanup_between_runs(0, 100)
assert time.monotonic() - begin < 5, "never the whole bound"
MiB = 2**20
assert result.before["simgpu:0"] == 80 * MiB and result.before["simgpu:1"] == 32 * MiB, result.before
assert (result.after["simgpu:0"], result.after["simgpu:1"]) == (16 * MiB, 0), result.after
wait = next(step for step in result.steps if step.name == "wait")
assert wait.detail == "the memory is back", wait
print("done")
"""


@alone
def test_device_memory_is_given_back_between_runs_and_a_late_thread_is_waited_for():
    done = subprocess.run([sys.executable, "-c", ON_A_DEVICE], capture_output=True, text=True, timeout=90)
    if "No module named 'torch'" in done.stderr or done.stderr.startswith("skip: "):
        skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("done\n")
    assert "simgpu:1 -32.0 MiB" in done.stdout
