"""Runs a test by itself in a process of its own: a run begins there with no children, and may become a subreaper.

Whatever it starts is ended at the end, and ends by itself within two minutes should even that fail.
"""

import functools
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 100


def alone(test):
    """Run a test function without arguments in a fresh process; its output is told where it fails."""

    @functools.wraps(test)
    def outside(tmp_path):
        with (tmp_path / "output").open("wb") as output:  # no pipe: a process that is left would hold it open
            done = subprocess.run(
                [sys.executable, "-m", "processes.alone", test.__module__, test.__name__],
                cwd=tmp_path,
                env={
                    **{name: value for name, value in os.environ.items() if name != "GPUCLEAN_RUN"},
                    "PYTHONPATH": os.pathsep.join(
                        filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
                    ),
                    "TMPDIR": str(tmp_path),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=SECONDS + 10,
                check=False,
            )
        said = (tmp_path / "output").read_text(errors="replace")
        if done.returncode == 77:
            pytest.skip(said.strip().splitlines()[-1])
        assert done.returncode == 0, said

    del outside.__wrapped__  # pytest would look at its arguments
    outside.inside = test  # type: ignore[attr-defined]
    return outside


def skip(reason):
    """Skip a test that runs alone."""
    print(reason, flush=True)
    end_everything()
    os._exit(77)


def end_everything():
    """End what is below this process, without the code that is tested."""
    import psutil

    for _ in range(5):
        for process in psutil.Process().children(recursive=True):
            try:
                process.kill()
            except psutil.Error:
                continue


def main():
    signal.alarm(SECONDS)
    # A run in the background of a shell (`pytest &`) has it ignored, and so has everything that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    module, name = sys.argv[1:]
    try:
        getattr(importlib.import_module(module), name).inside()
    finally:
        end_everything()


if __name__ == "__main__":
    main()
