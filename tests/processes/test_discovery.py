"""What a run finds: everything it started however that hides, and nothing that was there before or is another's."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from processes.alone import alone
from processes.starting import (
    end,
    has_executed,
    is_alive,
    orphan_that_executes,
    orphan_that_forks,
    python,
    sleeper,
    wait_for,
)
from pytest_gpuclean.processes.discovery import Discovery, has_children
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.ownership import COOKIE, Claim, Proof, Run
from pytest_gpuclean.processes.procfs import Procfs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are proved by /proc")

INSTEAD_OF_THE_COOKIE = {"PATH": os.environ.get("PATH", "")}


def begin(**options):
    run = Run(**options)
    return run, Discovery(run)


def pids(found):
    return {process.pid for process in found}


@alone
def test_a_process_without_children_is_told_at_once():
    assert not has_children()
    child = sleeper()
    assert has_children()
    child.kill()
    wait_for(lambda: not is_alive(child.pid))
    assert has_children(), "a zombie counts"
    child.wait()
    assert not has_children()


@alone
def test_looking_for_children_takes_no_exit_status_away():
    child = python("print('ready', flush=True); raise SystemExit(7)")
    wait_for(lambda: not is_alive(child.pid))
    for _ in range(3):
        assert has_children()
        begin()[1].everywhere()
    assert child.wait() == 7


@alone
def test_a_plain_child_is_found_with_its_proof():
    run, discovery = begin()
    child = sleeper()
    (found,) = discovery.below()
    assert (found.pid, found.proof, found.parent_pid) == (child.pid, Proof.DESCENDANT, os.getpid())
    assert run.prove(child.pid) in (Proof.COOKIE, Proof.DESCENDANT)


@alone
def test_grandchildren_are_found_in_the_order_of_their_parents():
    _, discovery = begin()
    shell = subprocess.Popen(["sh", "-c", "sleep 100 & sleep 100 & echo ready; wait"], stdout=subprocess.PIPE)
    shell.stdout.readline()
    found = discovery.below()
    assert len(found) == 3
    assert found[0].pid == shell.pid


@alone
def test_every_way_of_hiding_is_found_by_a_subreaper():
    _, discovery = begin()
    hidden = {
        "executed orphan": orphan_that_executes(),
        "forked orphan": orphan_that_forks(),
        "orphan with no descriptor left": orphan_that_forks(close_descriptors=True),
        "orphan without the cookie": orphan_that_executes(environ=INSTEAD_OF_THE_COOKIE),
        "child without the cookie": sleeper(env=INSTEAD_OF_THE_COOKIE).pid,
        "retitled": python(
            "import setproctitle as s; s.setproctitle('postgres: idle'); s.setthreadtitle('kworker')\n"
            "print('ready', flush=True); signal.pause()"
        ).pid,
        "session of its own": sleeper(start_new_session=True).pid,
        "stopped": python("import os; print('ready', flush=True); os.kill(os.getpid(), 19)").pid,
        "no dump": python(
            "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print('ready', flush=True); signal.pause()"
        ).pid,
    }
    assert pids(discovery.below()) == set(hidden.values())
    assert pids(discovery.everywhere()) == set(hidden.values())


@alone
def test_without_a_subreaper_orphans_are_found_by_cookie_and_by_ledger():
    ledger = os.open("ledger", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    run, discovery = begin(subreaper=False, ledger_fd=ledger)
    executed, forked = orphan_that_executes(), orphan_that_forks()
    try:
        wait_for(lambda: has_executed(executed, "sleep"), "exec")
        assert discovery.below() == ()
        assert {process.pid: process.proof for process in discovery.everywhere()} == {
            executed: Proof.COOKIE,
            forked: Proof.OPEN_LEDGER,
        }
        assert any("not adopted" in limit for limit in run.tier.limits)
    finally:
        end(executed, forked)


@alone
def test_what_is_below_an_orphan_is_found_without_a_cookie_of_its_own():
    run, discovery = begin(subreaper=False)
    shell = orphan_that_executes("sh", "-c", "env -i sleep 100 & echo $! > below; wait")
    below = 0
    try:
        wait_for(lambda: Path("below").exists() and Path("below").read_text(), "the shell")
        below = int(Path("below").read_text())
        wait_for(lambda: has_executed(below, "sleep"), "exec")
        assert (run.prove(shell), run.prove(below)) == (Proof.COOKIE, Proof.DESCENDANT)
        assert pids(discovery.everywhere()) == {shell, below}
    finally:
        end(shell, below or shell)


@alone
def test_what_was_proved_once_is_still_the_runs_own_as_an_orphan():
    _, discovery = begin(subreaper=False)
    shell = subprocess.Popen(["sh", "-c", "env -i sleep 100 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    below = int(shell.stdout.readline())
    wait_for(lambda: has_executed(below, "sleep"), "exec")
    try:
        assert below in pids(discovery.everywhere())
        shell.kill()
        shell.wait()
        (found,) = discovery.everywhere()
        assert (found.pid, found.proof) == (below, Proof.RECORDED)
    finally:
        end(below)


@alone
def test_what_has_ended_is_forgotten():
    run, discovery = begin()
    child = sleeper()
    discovery.everywhere()
    assert {key.pid for key in run.claim.recorded} == {child.pid}
    child.kill()
    child.wait()
    discovery.everywhere()
    assert run.claim.recorded == frozenset()


@alone
def test_children_from_before_the_run_and_what_they_start_are_not_its_own():
    """`sh -c 'daemon & exec pytest'`: the daemon is pytest's own child."""
    before = subprocess.Popen(
        ["sh", "-c", "read line; sleep 100 & (setsid sleep 100 &) ; echo ready; wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    run, discovery = begin()
    before.stdin.write(b"\n")
    before.stdin.flush()
    before.stdout.readline()
    mine = sleeper()
    assert pids(discovery.below()) == {mine.pid}
    assert pids(discovery.everywhere()) == {mine.pid}
    assert run.prove(before.pid) is None
    import psutil

    strangers = {process.pid for process in psutil.Process().children(recursive=True)} - {mine.pid}
    assert len(strangers) == 3, "the daemon, its child and its orphan, adopted by the run"
    assert [run.prove(pid) for pid in strangers] == [None] * 3


@alone
def test_beside_strangers_the_runs_own_needs_more_than_its_parents():
    sleeper()
    ledger = os.open("ledger", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    run, _ = begin(ledger_fd=ledger)
    assert run.may_adopt_strangers
    executed, forked, doubtful = sleeper(), orphan_that_forks(), sleeper(env=INSTEAD_OF_THE_COOKIE)
    assert run.prove(executed.pid) is Proof.COOKIE
    assert run.prove(forked) is Proof.OPEN_LEDGER
    assert run.prove(doubtful.pid) is None, "nothing tells it from an orphan of the daemon's"
    shell = subprocess.Popen(["sh", "-c", "env -i sleep 100 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    below = int(shell.stdout.readline())
    wait_for(lambda: has_executed(below, "sleep"), "exec")
    assert run.prove(below) is Proof.DESCENDANT, "its parent bears the cookie"


@alone
def test_a_child_that_had_ended_before_the_run_is_no_stranger():
    child = sleeper()
    child.kill()
    wait_for(lambda: not is_alive(child.pid))
    run, discovery = begin()
    assert not run.may_adopt_strangers
    assert discovery.below() == ()


@alone
def test_this_process_those_above_it_and_those_from_before_are_never_its_own():
    """Not even where everything else speaks for it."""
    before = sleeper()
    run, _ = begin()
    procfs = run.procfs
    pids = [os.getpid(), os.getppid(), procfs.stat(os.getppid()).parent_pid, before.pid]
    keys = {ProcessKey(pid, procfs.stat(pid).start_ticks) for pid in pids}
    run.claim = dataclasses.replace(run.claim, start_ticks=0, recorded=frozenset(keys))
    assert [run.claim.prove(procfs, procfs.stat(pid)) for pid in pids] == [Proof.RECORDED] * 4
    assert [run.prove(pid) for pid in (1, *pids)] == [None] * 5


@alone
def test_what_is_given_away_is_not_the_runs_own_any_more_nor_what_is_below_it():
    run, discovery = begin()
    shell = subprocess.Popen(["sh", "-c", "sleep 100 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    below = int(shell.stdout.readline())
    mine = sleeper()
    wait_for(lambda: has_executed(below, "sleep"))
    (given,) = [process.key for process in discovery.everywhere() if process.pid == shell.pid]
    run.disown(given)
    assert pids(discovery.below()) == pids(discovery.everywhere()) == {mine.pid}
    assert (run.prove(shell.pid), run.prove(below)) == (None, None)
    assert run.prove(mine.pid) is Proof.COOKIE
    assert not run.may_adopt_strangers


@alone
def test_a_fork_of_the_run_proves_nothing():
    run, _ = begin()
    child = sleeper()
    read_end, write_end = os.pipe()
    if (forked := os.fork()) == 0:
        os.write(write_end, repr(run.prove(child.pid)).encode())
        os._exit(0)
    os.waitpid(forked, 0)
    assert os.read(read_end, 100) == b"None"


@alone
def test_a_run_inside_a_run_belongs_to_both_and_not_the_other_way_round():
    outer, _ = begin(subreaper=False)
    in_outer = orphan_that_executes()
    inner, inner_discovery = begin(subreaper=False)
    in_inner = orphan_that_executes()
    try:
        for pid in (in_outer, in_inner):
            wait_for(lambda: has_executed(pid, "sleep"), "exec")
        assert inner.cookie.startswith(outer.cookie + "/")
        assert (outer.prove(in_outer), outer.prove(in_inner)) == (Proof.COOKIE, Proof.COOKIE)
        assert (inner.prove(in_outer), inner.prove(in_inner)) == (None, Proof.COOKIE)
        assert pids(inner_discovery.everywhere()) == {in_inner}
        inner.end()
        assert os.environ[COOKIE] == outer.cookie
        outer.end()
        assert COOKIE not in os.environ
    finally:
        end(in_outer, in_inner)


@alone
def test_another_runs_processes_are_not_ours_however_alike_the_cookie():
    run, discovery = begin(subreaper=False)
    others = [
        orphan_that_executes(environ={**os.environ, COOKIE: cookie})
        for cookie in ("", "x", run.cookie + "x", "x/" + run.cookie, run.cookie[:-1])
    ]
    others.append(orphan_that_executes(environ={**INSTEAD_OF_THE_COOKIE, "NOTE": f"{COOKIE}={run.cookie}"}))
    try:
        for pid in others:
            wait_for(lambda: has_executed(pid, "sleep"), "exec")
        assert [run.prove(pid) for pid in others] == [None] * len(others)
        assert discovery.everywhere() == ()
    finally:
        end(*others)


@alone
def test_whoever_else_opens_the_ledger_is_not_ours():
    path = os.path.abspath("ledger")
    ledger = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    _, discovery = begin(subreaper=False, ledger_fd=ledger)
    code = "import os, signal, sys; fd = os.open({!r}, {}); os.dup2(fd, {})\nprint('ready', flush=True); signal.pause()"
    for flags in (os.O_RDONLY, os.O_RDWR):
        looker = python(code.format(path, flags, ledger), env=INSTEAD_OF_THE_COOKIE)
        assert Procfs().file_of(looker.pid, ledger) is not None
        assert not discovery.run.claim.holds_ledger(Procfs(), looker.pid)
        looker.kill()
        looker.wait()


@alone
def test_a_ledger_that_programs_would_inherit_proves_nothing():
    ledger = os.open("ledger", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(ledger, True)
    assert begin(ledger_fd=ledger)[0].claim.ledger is None


@alone
def test_the_end_of_a_run_puts_the_subreaper_back_as_it_was():
    from pytest_gpuclean.processes.subreaper import adopts_orphans

    assert adopts_orphans() is False
    outer = Run()
    inner = Run()
    assert adopts_orphans() is True
    inner.end()
    assert adopts_orphans() is True
    outer.end()
    assert adopts_orphans() is False


@alone
def test_a_claim_outlives_its_run():
    """What the next run's sweep does: the run was killed, its ledger is read, its orphans are still proved."""
    ledger = os.open("ledger", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    run, _ = begin(subreaper=False, ledger_fd=ledger)
    executed, forked, bare = (
        orphan_that_executes(),
        orphan_that_forks(),
        orphan_that_executes(environ=INSTEAD_OF_THE_COOKIE),
    )
    try:
        for pid in (executed, bare):
            wait_for(lambda: has_executed(pid, "sleep"), "exec")
        procfs = Procfs()
        run.record([ProcessKey(bare, procfs.stat(bare).start_ticks)])
        claim = Claim.from_wire(run.claim.to_wire())
        assert claim == run.claim
        assert claim.holds_here(procfs)
        proofs = [claim.prove(procfs, procfs.stat(pid)) for pid in (executed, forked, bare)]
        assert proofs == [Proof.COOKIE, Proof.OPEN_LEDGER, Proof.RECORDED]
    finally:
        end(executed, forked, bare)


@alone
def test_many_children_are_all_found():
    """One read of the kernel's list is cut off at a page."""
    _, discovery = begin()
    started = {os.posix_spawnp("sleep", ["sleep", "60"], os.environ) for _ in range(900)}
    try:
        assert pids(discovery.below()) == started
    finally:
        for pid in started:
            os.kill(pid, signal.SIGKILL)


@alone
def test_threads_of_the_run_have_children_too():
    import threading

    _, discovery = begin()
    started = []
    may_end = threading.Event()

    def start():
        started.append(sleeper())
        may_end.wait()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(started) == 4)
    found = pids(discovery.below())
    may_end.set()
    assert found == {child.pid for child in started}
