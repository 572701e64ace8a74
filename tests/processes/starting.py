"""Starts processes in the ways in which a test leaves them. Each ends by itself after 100 seconds."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

SECONDS = 100
STANDINS = Path(__file__).parent / "standins"


def sleeper(**options):
    """Start a plain child."""
    return subprocess.Popen(["sleep", str(SECONDS)], **options)


def python(code, *arguments, **options):
    """Start a Python program that says `ready` once it is, and return it when it has."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import signal; signal.alarm({SECONDS})\n{code}", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    return until_ready(process)


def standin(name, *arguments, **options):
    """Start one of the stand-ins, and return it when it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, str(STANDINS / name), *arguments], stdout=subprocess.PIPE, text=True, **options
    )
    return until_ready(process)


def until_ready(process):
    line = process.stdout.readline()
    assert line.startswith("ready"), f"{process.args} said {line!r}"
    process.said = line.split()[1:]
    return process


def orphan_that_executes(*argv, environ=None):
    """Fork twice with setsid, execute, and return the number of the orphan."""
    argv = argv or ("sleep", str(SECONDS))

    def become():
        os.execvpe(argv[0], argv, os.environ if environ is None else environ)

    return _orphan(become)


def orphan_that_forks(close_descriptors=False):
    """Fork twice with setsid, go on without executing anything, and return the number of the orphan."""

    def stay():
        if close_descriptors:
            os.closerange(0, 256)
        while True:
            signal.pause()

    return _orphan(stay)


def _orphan(become):
    read_end, write_end = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            signal.alarm(SECONDS)
            os.setsid()
            if os.fork() == 0:
                signal.alarm(SECONDS)
                os.write(write_end, b"%d\n" % os.getpid())
                os.close(write_end)
                become()
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(middle, 0)
    with os.fdopen(read_end) as pipe:
        return int(pipe.readline())


def wait_for(is_so, what="it", seconds=20.0):
    """Look until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.005)


def sleeps_through(pid, seconds):
    """Tell whether the main thread of a process sleeps for a while, and not once wakes up meanwhile."""

    def seen():
        lines = Path(f"/proc/{pid}/task/{pid}/status").read_text().splitlines()
        return [line for line in lines if line.startswith(("State:\tS", "voluntary_ctxt_switches", "nonvoluntary"))]

    before = seen()
    time.sleep(seconds)
    return len(before) == 3 and seen() == before


def has_executed(pid, name):
    """Tell whether a process has become a program of this name."""
    return Path(f"/proc/{pid}/comm").read_text().strip() == name


def is_alive(pid):
    """Tell whether a process is there and has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def end(*pids):
    """End processes by their numbers, each as long as this process knows it to be the one it started."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(5000)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)
