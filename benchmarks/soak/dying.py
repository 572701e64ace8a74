"""What the tests of the loop do in a worker: something ordinary, or die, with something of theirs still alive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from multiprocessing import shared_memory

from benchmarks.soak import system

LIFE_SECONDS = 300
_ORPHAN = """
import os, sys
os.fork() and os._exit(0)
os.setsid()
os.fork() and os._exit(0)
os.execvp("sleep", ["sleep", *sys.argv[1:]])
"""


@dataclass
class Course:
    """One test, from its setup to its teardown."""

    does: str
    death: str
    phase: str
    companion: str
    status: int
    _kept: list[object] = field(default_factory=list)

    def at(self, phase: str) -> None:
        """Do what is due in a phase."""
        if self.death and phase == self.phase:
            self._die()
        elif phase == "call" and self.does:
            self._do(self.does)
        elif phase == "teardown" and self.does == "error":
            raise AssertionError("planned")

    def _do(self, what: str) -> None:
        if what == "failure":
            raise AssertionError("planned")
        if what == "memory":
            memory = [_array()]
            memory.append(memory)
        elif what == "thread":
            threading.Thread(target=time.sleep, args=(0.02,)).start()
        elif what in {"child", "orphan"}:
            leave(what)

    def _die(self) -> None:
        if self.companion == "busy thread":
            threading.Thread(target=_be_busy, daemon=True).start()
        elif self.companion == "memory":
            self._kept.append(_array())
        elif self.companion == "shared memory":
            self._kept.append(
                shared_memory.SharedMemory(f"{os.environ['SOAK_MARK']}-{os.getpid()}", create=True, size=1 << 20)
            )
        elif self.companion:
            leave(self.companion)
        if self.death == "exit":
            os._exit(self.status)
        elif self.death == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGKILL)).start()
        time.sleep(LIFE_SECONDS)


def leave(what: str) -> None:
    """Leave a child, or a daemon that is nobody's child and has forgotten its environment."""
    mark = os.environ["SOAK_MARK"]  # on the command line: what the daemon still has to be found by
    tail = [str(LIFE_SECONDS), system.as_number(mark)]
    if what == "child":
        subprocess.Popen(["sleep", *tail])
    else:
        subprocess.run([sys.executable, "-c", _ORPHAN, *tail], env={}, check=True)


def _array() -> object:
    torch = sys.modules.get("torch")
    if torch is not None:
        return torch.empty(4 << 20, dtype=torch.uint8)
    import numpy as np

    return np.empty(4 << 20, dtype=np.uint8)


def _be_busy() -> None:
    while True:
        sum(range(1000))
