"""Many processes that sleep, for as long as they are needed: `python -m benchmarks.crowd COUNT`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.measure import ROOT

LIFE_SECONDS = 300
"""They end by themselves, should their parent be killed."""


@contextmanager
def crowd(count: int) -> Iterator[None]:
    """Have so many processes on the machine, none of them below this one's children's children.

    Args:
        count: of processes.
    """
    parent = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.crowd", str(count)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    try:
        if parent.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{count} processes could not be started")
        yield
    finally:
        parent.stdin.close()
        parent.wait()
        parent.stdout.close()


def main() -> None:
    """Be as many processes as asked for until the standard input ends, then end each by its number."""
    pids: list[int] = []
    try:
        sleeper = ["sleep", str(LIFE_SECONDS)]
        pids.extend(os.posix_spawnp("sleep", sleeper, os.environ) for _ in range(int(sys.argv[1])))
        print("ready", flush=True)
        sys.stdin.read()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
