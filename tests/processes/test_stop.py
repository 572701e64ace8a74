"""Stopping: everything that is the run's own, in good order where it knows one, and not a signal to anybody else."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from processes.alone import alone
from processes.starting import (
    STANDINS,
    end,
    has_executed,
    is_alive,
    orphan_that_executes,
    orphan_that_forks,
    python,
    sleeper,
    sleeps_through,
    standin,
    until_ready,
    wait_for,
)
from pytest_gpuclean.processes.discovery import Discovery, OwnedProcess
from pytest_gpuclean.processes.families.interface import Kind
from pytest_gpuclean.processes.families.shapes import is_program
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.ownership import Proof, Run
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.stop import stop
from pytest_gpuclean.processes.target import DEFAULT_GRACE_SECONDS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are proved by /proc")


class World:
    """A run with its discovery, and a way to stop everything but what may live."""

    def __init__(self, **options):
        self.run = Run(**options)
        self.discovery = Discovery(self.run)
        self.living = set()

    def may_live(self, key: ProcessKey):
        return key.pid in self.living

    def stop(self, *pids, seconds=10.0, **options):
        found = [process for process in self.discovery.survey() if not self.may_live(process.key)]
        if pids:
            found = [process for process in found if process.pid in pids]
        told = stop(found, self.discovery, settle_seconds=seconds, may_live=self.may_live, **options)
        return {left.pid: left for left in told}


@alone
def test_a_plain_child_is_stopped_and_told():
    world = World()
    child = sleeper()
    told = world.stop(started_by=lambda key: f"test_x ({key.pid})")
    left = told.pop(child.pid)
    assert told == {}
    assert (left.name, left.command, left.ended_by, left.reason) == ("sleep", "sleep 100", "SIGINT", "")
    assert left.started_by == f"test_x ({child.pid})"
    assert not left.is_alive
    assert 0 <= left.seconds < 10


@alone
def test_the_exit_code_of_a_child_stays_its_popens():
    world = World()
    child = sleeper()
    script = python(
        "import sys; signal.signal(2, lambda *a: sys.exit(5)); print('ready', flush=True)\nwhile True: signal.pause()"
    )
    done = python("print('ready', flush=True); raise SystemExit(7)")
    wait_for(lambda: not is_alive(done.pid))
    told = world.stop()
    assert (child.wait(), script.wait(), done.wait()) == (-signal.SIGINT, 5, 7)
    assert told[done.pid].ended_by == "itself"


@alone
def test_the_exit_code_of_a_multiprocessing_worker_stays_its_own():
    world = World()
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(90,))
    worker.start()
    told = world.stop()
    worker.join()
    assert worker.exitcode == -signal.SIGTERM
    assert told[worker.pid].name == "forked process"


@alone
def test_every_way_of_hiding_is_stopped():
    world = World()
    hidden = [
        orphan_that_executes(),
        orphan_that_forks(),
        orphan_that_forks(close_descriptors=True),
        orphan_that_executes(environ={"PATH": os.environ["PATH"]}),
        sleeper(env={"PATH": os.environ["PATH"]}, start_new_session=True).pid,
        python(
            "import setproctitle as s; s.setproctitle('postgres: idle'); print('ready', flush=True); signal.pause()"
        ).pid,
    ]
    told = world.stop()
    assert {pid for pid in hidden if is_alive(pid)} == set()
    assert set(told) == set(hidden)
    assert {left.ended_by for left in told.values()} <= {"SIGINT", "SIGTERM"}


@alone
def test_orphans_are_stopped_without_a_subreaper_too():
    ledger = os.open("ledger", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    world = World(subreaper=False, ledger_fd=ledger)
    orphans = [orphan_that_executes(), orphan_that_forks()]
    try:
        world.stop()
        assert [is_alive(pid) for pid in orphans] == [False, False]
    finally:
        end(*orphans)


@alone
def test_a_fork_of_the_run_does_not_go_on_with_the_run():
    """SIGINT would raise KeyboardInterrupt in it, and the copy of pytest would write its reports."""
    world = World()
    if (forked := os.fork()) == 0:
        try:
            signal.pause()
        except BaseException:
            Path("went-on").touch()
        os._exit(0)
    assert world.stop()[forked].ended_by == "SIGTERM"
    assert not Path("went-on").exists()


@alone
def test_what_ignores_the_gentle_signals_is_killed_without_waiting_for_them():
    world = World()
    both, first = standin("stubborn.py", "ignore", "INT", "TERM"), standin("stubborn.py", "ignore", "INT")
    told = world.stop()
    assert told[both.pid].ended_by == "SIGKILL"
    assert told[first.pid].ended_by == "SIGTERM"
    assert max(left.seconds for left in told.values()) < DEFAULT_GRACE_SECONDS


@alone
def test_what_catches_the_gentle_signals_and_stays_is_killed_in_the_end():
    world = World()
    child = standin("stubborn.py", "catch", "INT", "TERM")
    begin = time.monotonic()
    left = world.stop(seconds=2.0)[child.pid]
    assert left.ended_by == "SIGKILL"
    assert time.monotonic() - begin < 10
    assert left.seconds >= 0.5


@alone
def test_a_stopped_process_is_woken_to_end():
    world = World()
    child = python("import os; print('ready', flush=True); os.kill(os.getpid(), 19); signal.pause()")
    wait_for(lambda: world.run.procfs.stat(child.pid).state == "T")
    assert world.stop()[child.pid].ended_by == "SIGINT"
    assert child.wait() in (-signal.SIGINT, 1)


@pytest.mark.not_measured
@alone
def test_a_chain_that_hops_from_number_to_number_is_caught():
    for number, modes in enumerate((["plain"], ["ignore"], ["ignore", "setsid"])):
        world = World()
        file = Path(f"said{number}")
        process = subprocess.Popen([sys.executable, str(STANDINS / "hopper.py"), str(file), *modes])
        wait_for(file.exists)
        process.wait()
        world.stop(seconds=5)
        assert [p for p in world.discovery.below() if not p.is_zombie] == []
        time.sleep(0.05)
        assert [p for p in world.discovery.below() if not p.is_zombie] == []
        assert file.read_text() != "reached the end", f"{modes}: it ended by itself"
        world.run.end()


@pytest.mark.not_measured
@alone
def test_a_stopped_process_with_threads_gets_its_signal_where_it_can_take_it():
    """Python's main thread goes on sleeping where another thread takes the signal."""
    world = World()
    for number in range(5):
        script = standin("pool.py", "fork", f"said{number}")
        # Until its main thread sleeps in `signal.pause`: just before, it misses signals by itself.
        wait_for(lambda: sleeps_through(script.pid, seconds=0.05))
        os.kill(script.pid, signal.SIGSTOP)
        wait_for(lambda: world.run.procfs.stat(script.pid).state == "T")
        world.stop()
        assert Path(f"said{number}").read_text() == "in good order"


class Late(Discovery):
    """Finds the next link of a chain only some looks after the last one has ended."""

    def __init__(self, run, first, at_look, ghost=lambda: None, ghost_at=0):
        super().__init__(run)
        self.first, self.at_look, self.ghost, self.ghost_at = first, at_look, ghost, ghost_at
        self.looks = 0
        self.late = None

    def survey(self, beyond=()):
        if is_alive(self.first.pid):
            return super().survey(beyond)
        self.looks += 1
        ghosts = [self.ghost()] if self.looks == self.ghost_at else []
        if self.looks == self.at_look:
            self.late = sleeper()
        return (*super().survey(beyond), *filter(None, ghosts))


def stop_late(**options):
    world = World()
    late = Late(world.run, sleeper(), **options)
    stop(world.discovery.below(), late, settle_seconds=5, may_live=lambda key: False)
    return late.late is not None and not is_alive(late.late.pid)


@alone
def test_one_look_that_finds_nothing_is_not_believed():
    """The kernel's list may lack a process while another one ends."""
    assert stop_late(at_look=4), "the first look is the one at which its end is seen, three more have to be clean"


@alone
def test_three_looks_that_find_nothing_are_believed():
    assert not stop_late(at_look=5)


@alone
def test_a_link_that_has_just_ended_makes_for_another_look():
    children = []  # a Popen that is forgotten takes the exit status

    def zombie():
        children.append(sleeper())
        children[0].kill()
        wait_for(lambda: not is_alive(children[0].pid))

    assert stop_late(at_look=5, ghost=zombie, ghost_at=2)


@alone
def test_a_link_that_has_gone_altogether_makes_for_another_look():
    def gone():
        child = sleeper()
        stat = Procfs().stat(child.pid)
        child.kill()
        child.wait()
        return OwnedProcess(key=ProcessKey(child.pid, stat.start_ticks), parent_pid=1, proof=Proof.COOKIE)

    assert stop_late(at_look=5, ghost=gone, ghost_at=2)


@alone
def test_a_chain_beside_what_may_live_is_caught_and_the_other_goes_on():
    world = World()
    server = standin("listener.py", "0")
    world.living.add(server.pid)
    file = Path("said")
    process = subprocess.Popen([sys.executable, str(STANDINS / "hopper.py"), str(file), "ignore", "setsid"])
    wait_for(file.exists)
    process.wait()
    world.stop(seconds=5)
    assert [p.pid for p in world.discovery.below() if not p.is_zombie] == [server.pid]
    assert file.read_text() != "reached the end"


@alone
def test_what_may_live_goes_on_with_what_is_below_it():
    world = World()
    server = subprocess.Popen(["sh", "-c", "sleep 100 & echo ready $!; wait"], stdout=subprocess.PIPE, text=True)
    below = int(until_ready(server).said[0])
    mine = sleeper()
    world.living.add(server.pid)
    assert set(world.stop(mine.pid)) == {mine.pid}
    other = sleeper()
    assert set(world.stop(other.pid)) == {other.pid}
    assert is_alive(server.pid)
    assert is_alive(below)


@alone
def test_children_from_before_the_run_are_not_touched():
    before = subprocess.Popen(
        ["sh", "-c", "(setsid sleep 100 &); sleep 100 & echo ready; wait"], stdout=subprocess.PIPE
    )
    before.stdout.readline()
    import psutil

    innocent = {before.pid}
    wait_for(lambda: len(psutil.Process().children(recursive=True)) == 2 or True)
    world = World()
    mine = sleeper()
    assert set(world.stop()) == {mine.pid}
    innocent |= {process.pid for process in psutil.Process().children(recursive=True)} - {mine.pid}
    assert len(innocent) >= 2
    assert all(is_alive(pid) for pid in innocent)


@alone
def test_a_process_of_which_the_proof_is_gone_is_told_and_left():
    """The target was found before, and now belongs to nobody that can be named."""
    ours = World(subreaper=False)
    foreign = orphan_that_executes(environ={"PATH": os.environ["PATH"]})
    try:
        stat = ours.run.procfs.stat(foreign)
        claimed = OwnedProcess(key=ProcessKey(foreign, stat.start_ticks), parent_pid=1, proof=Proof.COOKIE)
        reused = OwnedProcess(key=ProcessKey(foreign, stat.start_ticks - 1), parent_pid=1, proof=Proof.COOKIE)
        for target, reason, ended_by in ((claimed, "could not be proved", ""), (reused, "", "itself")):
            (left,) = stop([target], ours.discovery, settle_seconds=2, may_live=lambda key: False)
            assert reason in left.reason
            assert left.ended_by == ended_by
            assert is_alive(foreign)
    finally:
        end(foreign)


@alone
def test_a_process_that_ends_while_it_is_proved_has_gone_by_itself():
    """While it ends, its environment is gone, and its number is not."""
    ours = World()
    child = sleeper()
    survey, asked = ours.discovery.survey, []

    def survey_after_its_end(beyond=()):
        if asked and child.poll() is None:
            child.kill()
            child.wait()
        return survey(beyond)

    ours.discovery.prove = asked.append
    ours.discovery.survey = survey_after_its_end
    (left,) = ours.stop(child.pid).values()
    assert asked
    assert (left.ended_by, left.reason) == ("itself", "")


@alone
def test_nothing_is_stopped_by_a_fork_of_the_run():
    world = World()
    child = sleeper()
    if (forked := os.fork()) == 0:
        world.stop(child.pid)
        os._exit(0)
    os.waitpid(forked, 0)
    assert is_alive(child.pid)


@alone
def test_a_script_with_a_pool_ends_its_workers_itself():
    world = World()
    for method in ("fork", "spawn"):
        script = standin("pool.py", method, f"said-{method}")
        told = world.stop()
        assert Path(f"said-{method}").read_text() == "in good order"
        assert told[script.pid].ended_by == "SIGINT"
        workers = [int(pid) for pid in script.said]
        assert not any(is_alive(pid) for pid in workers)
        assert {told[pid].ended_by for pid in workers} == {"itself"}


@alone
def test_the_resource_tracker_is_never_signalled_and_the_shared_memory_goes():
    from multiprocessing import resource_tracker, shared_memory

    world = World()
    memory = shared_memory.SharedMemory(create=True, size=4096)
    tracker = resource_tracker._resource_tracker._pid
    told = world.stop(run_ends=True)
    assert told[tracker].name == "resource tracker"
    assert told[tracker].is_alive
    assert "unlinks shared memory" in told[tracker].reason
    assert is_alive(tracker)
    memory.close()
    memory.unlink()


@alone
def test_the_forkserver_stays_until_the_run_ends_and_its_workers_do_not():
    world = World()
    context = multiprocessing.get_context("forkserver")
    worker = context.Process(target=time.sleep, args=(90,))
    worker.start()
    told = world.stop()
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    assert not told[worker.pid].is_alive
    assert told[server].is_alive
    again = context.Process(target=time.sleep, args=(0,))
    again.start()
    again.join()
    assert again.exitcode == 0
    assert not world.stop(run_ends=True)[server].is_alive


@alone
def test_a_shared_service_and_what_runs_in_it_are_left_alone():
    world = World()
    agent = subprocess.Popen(
        ["ssh-agent", "-c", "sleep 100 & echo ready $!; wait"], executable="/bin/sh", stdout=subprocess.PIPE, text=True
    )
    below = int(until_ready(agent).said[0])
    told = world.stop(run_ends=True)
    assert is_alive(agent.pid)
    assert is_alive(below)
    assert "share" in told[agent.pid].reason
    assert "belongs to ssh-agent" in told[below].reason


@alone
def test_what_the_user_keeps_is_kept():
    world = World()
    kept = sleeper(env={**os.environ, "GPUCLEAN_KEEP": "1"})
    not_kept = sleeper(env={**os.environ, "GPUCLEAN_KEEP": "0"})
    told = world.stop()
    assert is_alive(kept.pid)
    assert told[kept.pid].reason == "it bears GPUCLEAN_KEEP=1"
    assert not is_alive(not_kept.pid)


@alone
def test_a_family_of_somebody_else_comes_first_and_one_that_raises_is_passed_over():
    class Raises(Kind):
        def recognizes(self, command):
            raise ValueError

    world = World()
    mine = Kind(name="my server", matches=is_program({"sleep"}), first_signal=signal.SIGUSR1)
    child = sleeper()
    left = world.stop(families=(Raises(name="x", matches=print), mine))[child.pid]
    assert (left.name, left.ended_by) == ("my server", "SIGUSR1")


@alone
def test_processes_beyond_the_limit_of_open_files_are_stopped_too():
    world = World()
    started = [os.posix_spawnp("sleep", ["sleep", "60"], os.environ) for _ in range(60)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 4096))
    told = world.stop()
    assert [pid for pid in started if is_alive(pid)] == []
    assert {left.ended_by for left in told.values()} == {"SIGINT"}
    assert len(told) == 60


@alone
def test_the_innocent_beside_are_not_touched():
    """500 processes that were there before the run, some with the same command line."""
    innocent = [os.posix_spawnp("sleep", ["sleep", "100"], os.environ) for _ in range(500)]
    try:
        world = World()
        mine = [sleeper().pid for _ in range(3)]
        assert set(world.stop()) == set(mine)
        assert all(is_alive(pid) for pid in innocent)
        assert not any(is_alive(pid) for pid in mine)
    finally:
        for pid in innocent:
            os.kill(pid, signal.SIGKILL)


@alone
def test_what_a_thread_of_the_run_starts_meanwhile_goes_on():
    """A plugin that asks `nvidia-smi` every second, say."""
    import threading

    world = World()
    target = standin("stubborn.py", "catch", "INT")
    may_end = threading.Event()
    codes = []

    def ask_again_and_again():
        while not may_end.is_set():
            codes.append(subprocess.run(["sleep", "0.01"], check=False).returncode)

    thread = threading.Thread(target=ask_again_and_again)
    thread.start()
    found = [process for process in world.discovery.below() if process.pid == target.pid]
    told = stop(found, world.discovery, settle_seconds=3, may_live=lambda key: False)
    may_end.set()
    thread.join()
    assert [left.pid for left in told] == [target.pid]
    assert len(codes) > 3
    assert set(codes) == {0}


@alone
def test_a_tree_that_grows_is_caught_whole():
    world = World()
    code = "i=10; while true; do i=$((i+1)); (exec sleep 90.$i) & sleep 0.001; done"
    shell = subprocess.Popen(["sh", "-c", f"(sleep 3; kill -9 $$) & echo ready; {code}"], stdout=subprocess.PIPE)
    shell.stdout.readline()
    time.sleep(0.1)
    told = world.stop()
    assert len(told) > 5
    assert [process for process in world.discovery.below() if not process.is_zombie] == []
    assert {left.ended_by for left in told.values()} <= {"SIGINT", "SIGTERM", "itself"}


@alone
def test_what_was_held_in_place_and_is_left_alone_goes_on():
    world = World()
    kept = sleeper(env={**os.environ, "GPUCLEAN_KEEP": "1"})
    script = standin("pool.py", "fork", "said")
    world.stop(seconds=5)
    assert Path("said").read_text() == "in good order"
    assert not is_alive(script.pid)
    assert world.run.procfs.stat(kept.pid).state == "S"


@alone
def test_what_bears_the_cookie_elsewhere_is_stopped_with_what_is_below_it():
    """A job that a terminal server of the user's runs: not below the run, and its child has no cookie."""
    code = (
        "import os, signal, subprocess, sys\n"
        "signal.alarm(100)\n"
        "environ = {**os.environ, 'GPUCLEAN_RUN': open('cookie').readline()}\n"
        "subprocess.Popen(['sh', '-c', 'env -i sleep 100 & echo $$ $! > jobs; wait'], env=environ).wait()"
    )
    os.mkfifo("cookie")
    server = orphan_that_executes(sys.executable, "-c", code)
    world = World()
    Path("cookie").write_text(world.run.cookie)
    wait_for(lambda: Path("jobs").exists() and Path("jobs").read_text().endswith("\n"))
    job, below = map(int, Path("jobs").read_text().split())
    try:
        wait_for(lambda: has_executed(below, "sleep"))
        found = world.discovery.everywhere()
        assert {process.pid for process in found} == {job, below}
        stop([p for p in found if p.pid == job], world.discovery, settle_seconds=5, may_live=lambda key: False)
        assert not is_alive(job)
        assert not is_alive(below)
        world.stop()
    finally:
        end(server, job, below)


@alone
def test_it_takes_no_longer_than_it_may():
    world = World()
    child = standin("stubborn.py", "catch", "INT", "TERM")
    begin = time.monotonic()
    world.stop(seconds=0.3)
    assert time.monotonic() - begin < 5
    wait_for(lambda: not is_alive(child.pid))


@alone
def test_adopted_zombies_are_reaped_and_a_childs_own_are_not():
    world = World()
    shell = subprocess.Popen(["sh", "-c", "sleep 100 & echo ready $!; wait"], stdout=subprocess.PIPE, text=True)
    below = int(until_ready(shell).said[0])
    world.discovery.below()
    shell.kill()
    wait_for(lambda: not is_alive(shell.pid))
    world.stop()
    assert world.run.procfs.stat(below) is None, "it was adopted: nobody waits for it"
    assert shell.wait() == -signal.SIGKILL


@alone
def test_a_daemon_that_was_never_seen_below_another_is_reaped_too():
    world = World()
    daemon = orphan_that_executes()
    wait_for(lambda: world.run.procfs.stat(daemon).parent_pid == os.getpid())
    world.stop()
    assert world.run.procfs.stat(daemon) is None, "it was forked twice: nobody here waits for it"


@alone
def test_a_child_with_a_session_of_its_own_keeps_its_exit_status():
    world = World()
    leader = sleeper(start_new_session=True)
    world.stop()
    assert leader.wait() == -signal.SIGINT


@alone
def test_a_child_from_before_the_runs_own_session_keeps_its_exit_status():
    world = World()
    child = sleeper()
    os.setsid()
    world.stop()
    assert child.wait() == -signal.SIGINT


@alone
def test_without_pidfds_direct_children_alone_are_stopped_and_the_rest_is_told():
    del os.pidfd_open
    world = World()
    assert any("no pidfd" in limit for limit in world.run.tier.limits)
    shell = subprocess.Popen(
        ["sh", "-c", "trap '' INT TERM; sleep 100 & echo ready $!; wait"], stdout=subprocess.PIPE, text=True
    )
    below = int(until_ready(shell).said[0])
    child = sleeper()
    told = world.stop(seconds=3)
    assert not is_alive(child.pid)
    assert not is_alive(shell.pid)
    assert child.wait() == -signal.SIGINT
    # Once its parent has ended it is a direct child itself: adopted.
    assert not is_alive(below) or "no pidfd" in told[below].reason
