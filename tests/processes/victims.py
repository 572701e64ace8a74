"""Runs that are killed, and what they leave. Whatever they start ends by itself after 100 seconds."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from processes.starting import end, is_alive, until_ready

FOLDER = "ledgers"
PRELUDE = """
import os, signal, subprocess, sys, time
signal.alarm(100)
from processes.starting import *
from pytest_gpuclean.processes.discovery import Discovery
from pytest_gpuclean.processes.ledger import Ledger, begin_run
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.run_record import Seen
run, ledger = begin_run(folders=[os.path.abspath(sys.argv[1])])
assert isinstance(ledger, Ledger), ledger
key_of = lambda pid: ProcessKey(pid, Procfs().stat(pid).start_ticks)
note = lambda pid, test="test_x": ledger.write([Seen(key=key_of(pid), label="x", started_by=test)])
bare = {"PATH": os.environ["PATH"]}
def ready(*pids):
    # A child has no environment for up to 12 ms after Popen has returned where the machine is busy.
    for pid in pids:
        wait_for(lambda: Procfs().environ(pid) != b"")
    print("ready", *pids, flush=True)
    while True:
        signal.pause()
"""


class Victim:
    """A run in a process of its own; `pids` are those that it said it had started."""

    def __init__(self, code, environ=None, folder=FOLDER, **options):
        Path(folder).mkdir(mode=0o700, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{PRELUDE}\n{code}", folder],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environ or {})},
            **options,
        )
        until_ready(self.process)
        self.pids = [int(pid) for pid in self.process.said]  # type: ignore[attr-defined]
        self.pid = self.process.pid

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()  # type: ignore[union-attr]
        end(*self.pids)

    @property
    def alive(self):
        return [is_alive(pid) for pid in self.pids]


def ledgers(folder=FOLDER):
    return sorted(Path(folder).iterdir())
