"""A process that is held on to is the one that is meant, whatever becomes of its number."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from processes.alone import alone, skip
from processes.starting import end, is_alive, python, sleeper, wait_for
from pytest_gpuclean.processes import identity
from pytest_gpuclean.processes.identity import ChildPin, NoPin, PidfdPin, Sent, pin
from pytest_gpuclean.processes.procfs import Procfs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pidfds are Linux's")

PROCFS = Procfs()


@alone
def test_a_living_process_is_pinned_signalled_and_seen_to_end():
    child = sleeper()
    pinned = pin(PROCFS, child.pid)
    assert (pinned.key.pid, pinned.is_same(), pinned.is_gone()) == (child.pid, True, False)
    assert pinned.send(signal.SIGTERM) is Sent.SENT
    wait_for(pinned.is_gone)
    assert pinned.is_same(), "a zombie still has its number"
    assert child.wait() == -signal.SIGTERM
    assert not pinned.is_same()
    assert pinned.send(signal.SIGTERM) is Sent.GONE
    pinned.close()
    pinned.close()


@alone
def test_a_number_that_nobody_has_is_not_pinned():
    child = sleeper()
    end(child.pid)
    child.wait()
    assert pin(PROCFS, child.pid) is None


@alone
def test_a_process_whose_main_thread_alone_has_ended_is_not_gone():
    child = python(
        "import ctypes, threading\n"
        "threading.Thread(target=lambda: (signal.pthread_sigmask(0, []), __import__('time').sleep(90))).start()\n"
        "print('ready', flush=True); ctypes.CDLL(None).pthread_exit(None)"
    )
    wait_for(lambda: PROCFS.stat(child.pid).state == "Z")
    pinned = pin(PROCFS, child.pid)
    assert not pinned.is_gone()
    pinned.send(signal.SIGKILL)
    wait_for(pinned.is_gone)


@alone
def test_only_what_nobody_waits_for_is_reaped_and_only_if_it_is_a_child():
    child = sleeper()
    pinned = pin(PROCFS, child.pid)
    assert not pinned.reap()
    pinned.send(signal.SIGKILL)
    wait_for(pinned.is_gone)
    assert pinned.reap()
    assert not pinned.reap()
    stranger = pin(PROCFS, os.getppid())
    assert not stranger.reap()


@alone
def test_without_a_pidfd_a_direct_child_alone_is_pinned():
    del os.pidfd_open  # a Python on a system without
    child = sleeper()
    pinned = pin(PROCFS, child.pid)
    assert isinstance(pinned, ChildPin)
    assert not pinned.is_gone()
    refused = pin(PROCFS, os.getppid())
    assert isinstance(refused, NoPin)
    assert "no pidfd" in refused.reason
    assert pinned.send(signal.SIGTERM) is Sent.SENT
    wait_for(pinned.is_gone)
    assert not pinned.reap()
    assert child.wait() == -signal.SIGTERM
    assert pinned.send(signal.SIGTERM) is Sent.GONE


@alone
def test_without_a_descriptor_to_spare_nothing_is_pinned_and_it_is_said():
    import resource

    child = sleeper()
    used = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (used[0] + 1, 4096))
    refused = pin(PROCFS, child.pid)
    assert isinstance(refused, NoPin)
    assert "too many open files" in refused.reason.lower()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    assert is_alive(child.pid)


REUSE = """
    import os, signal, subprocess, sys
    from pytest_gpuclean.processes.identity import Sent, pin
    from pytest_gpuclean.processes.procfs import Procfs

    signal.alarm(60)
    procfs = Procfs()
    assert procfs.shows(os.getpid())
    first = os.posix_spawnp("sleep", ["sleep", "60"], os.environ)
    pinned = pin(procfs, first)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    for _ in range(3):
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(first - 1))
        second = os.posix_spawnp("sleep", ["sleep", "60"], os.environ)
        if second == first:
            break
        os.kill(second, signal.SIGKILL)
        os.waitpid(second, 0)
    else:
        sys.exit("the number was not given again")
    assert not pinned.is_same() and pinned.is_gone()
    assert pinned.send(signal.SIGKILL) is Sent.GONE
    os.kill(second, 0)
    assert os.waitpid(second, os.WNOHANG) == (0, 0), "the innocent one was harmed"
    os.kill(second, signal.SIGKILL)
    print("reused", first)
"""


@alone
def test_a_number_that_was_given_to_another_process_does_not_hit_it():
    unshare = shutil.which("unshare")
    if unshare is None:
        skip("no unshare here")
    done = subprocess.run(
        [unshare, "-Urpf", "--mount-proc", "--kill-child", sys.executable, "-c", textwrap.dedent(REUSE)],
        capture_output=True,
        text=True,
        check=False,
        timeout=70,
    )
    if "unshare" in done.stderr or "ns_last_pid" in done.stderr or "not given again" in done.stderr:
        skip(f"no process namespace of our own here: {done.stderr.strip().splitlines()[-1]}")
    assert done.stdout.startswith("reused"), done.stderr


OUTER = """
    import os, signal, subprocess, sys
    from pytest_gpuclean.processes.discovery import Discovery
    from pytest_gpuclean.processes.identity import ProcessKey
    from pytest_gpuclean.processes.ownership import Run
    from pytest_gpuclean.processes.stop import stop

    signal.alarm(60)
    run = Run()
    discovery = Discovery(run)
    child = subprocess.Popen(["sleep", "60"])
    assert not run.tier.proc and "does not show this process" in run.tier.limits[0], run.tier
    assert discovery.below() == () and discovery.everywhere() == ()
    assert [run.prove(pid) for pid in range(1, 2000)] == [None] * 1999
    assert child.poll() is None
    child.kill()
    print("looked")
"""


@alone
def test_a_proc_that_shows_another_namespace_is_not_believed():
    """The numbers in it are other people's here."""
    unshare = shutil.which("unshare")
    if unshare is None:
        skip("no unshare here")
    done = subprocess.run(
        [unshare, "-Urpf", "--kill-child", sys.executable, "-c", textwrap.dedent(OUTER)],
        capture_output=True,
        text=True,
        check=False,
        timeout=70,
    )
    if "unshare" in done.stderr:
        skip(f"no process namespace of our own here: {done.stderr.strip().splitlines()[-1]}")
    assert done.stdout.startswith("looked"), done.stderr


@alone
def test_the_clock_fits_the_starts_of_processes():
    before = identity.ticks_now()
    child = sleeper()
    start = PROCFS.stat(child.pid).start_ticks
    assert before - 1 <= start <= identity.ticks_now() + 1
    assert isinstance(pin(PROCFS, child.pid), PidfdPin)
