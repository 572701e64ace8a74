"""`gpuclean run -- CMD`: whatever CMD started is stopped once CMD has ended, however it has ended."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence

from pytest_gpuclean.cli.reading import read_seconds
from pytest_gpuclean.model.processes import LeftProcess

_MOMENT_SECONDS = 0.2
"""What goes by itself within this is no leak."""
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH")
_SI_KERNEL = 0x80
"""The kernel sent it: a terminal, to everything in the foreground, CMD included."""
_NOT_DONE, _NOT_EXECUTABLE, _NOT_FOUND = 125, 126, 127


class RunCommand:
    """Runs another command, and stops every descendant that it leaves."""

    name = "run"
    summary = "run a command, and stop every process that it leaves behind"
    usage: str | None = "gpuclean run [--settle SECONDS] [--json] -- CMD..."

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--settle",
            metavar="SECONDS",
            type=read_seconds,
            default=10.0,
            help="the upper bound for stopping what CMD has left (default: 10)",
        )
        parser.add_argument("--json", action="store_true", help="report what was left as one line of JSON, on stderr")
        parser.add_argument("cmd", metavar="CMD", nargs=argparse.REMAINDER, help="the command with its arguments")

    def run(self, options: argparse.Namespace) -> int:
        # `gpuclean run pytest -x` is understood too; a `--` in it is then CMD's own.
        cmd = [*options.cmd, *(options.rest if options.cmd else options.rest[1:])]
        if not cmd:
            options.parser.error("there is no CMD; write it behind --, such as: gpuclean run -- pytest tests")
        if sys.platform != "linux":
            print(f"gpuclean run: {sys.platform} does not hand orphans to it: this needs Linux", file=sys.stderr)
            return _NOT_DONE
        return _run(cmd, settle_seconds=options.settle, as_json=options.json)


def _run(cmd: Sequence[str], *, settle_seconds: float, as_json: bool) -> int:
    from pytest_gpuclean.processes.discovery import Discovery
    from pytest_gpuclean.processes.ledger import Ledger, begin_run
    from pytest_gpuclean.processes.stop import stop
    from pytest_gpuclean.processes.trackers import without_ended_trackers

    run, ledger = begin_run()
    discovery = Discovery(run)
    try:
        for limit in run.tier.limits:
            print(f"gpuclean run: {limit}", file=sys.stderr)
        supervised = _Supervised(cmd)
        refused = supervised.start()
        if refused is None:
            supervised.wait()
        supervised.wait_for_the_others()
        left = stop(
            discovery.everywhere(),
            discovery,
            settle_seconds=settle_seconds,
            may_live=lambda key: False,  # noqa: ARG005
            run_ends=True,
        )
        _report(cmd, without_ended_trackers(run.procfs, left), as_json=as_json)
        return supervised.status() if refused is None else refused
    finally:
        if isinstance(ledger, Ledger):
            ledger.close()
        run.end()


class _Supervised:
    """CMD, this process's only child that somebody waits for."""

    def __init__(self, cmd: Sequence[str]) -> None:
        self._cmd = cmd
        self._pid = 0
        self._status: int | None = None
        self._terms = 0

    def start(self) -> int | None:
        """Start it; the exit status where that cannot be done."""
        forwarded = {number for name in _FORWARDED if (number := getattr(signal, name, None))}
        # Who started this may ignore SIGCHLD: children would then vanish together with their exit status.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._signals = {signal.SIGCHLD, *forwarded}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        # Python ignores these two; a program expects to find them as a shell leaves them.
        defaults = [signal.SIGPIPE, signal.SIGXFSZ]
        try:
            self._pid = os.posix_spawnp(
                self._cmd[0], list(self._cmd), os.environ, setsigmask=before, setsigdef=defaults
            )
        except (FileNotFoundError, NotADirectoryError):
            print(f"gpuclean run: {self._cmd[0]}: command not found", file=sys.stderr)
            return _NOT_FOUND
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            print(f"gpuclean run: {self._cmd[0]}: {reason}", file=sys.stderr)
            return _NOT_EXECUTABLE
        return None

    def wait(self) -> None:
        """Wait for its end, and hand on the signals that this process gets. A second SIGTERM ends the waiting."""
        while self._status is None and self._terms < 2:
            self._take(signal.sigwaitinfo(self._signals))

    def status(self) -> int:
        """Give its exit status, as a shell would say it."""
        self._reap()
        return _NOT_DONE if self._status is None else self._status

    def wait_for_the_others(self) -> None:
        """Give what is about to end by itself a moment for it."""
        end = time.monotonic() + _MOMENT_SECONDS
        while self._reap() and self._terms < 2 and (seconds := end - time.monotonic()) > 0:
            info = signal.sigtimedwait(self._signals, seconds)
            if info is not None:
                self._take(info)

    def _take(self, info: signal.struct_siginfo) -> None:
        number = info.si_signo
        if number == signal.SIGCHLD:
            self._reap()
            return
        self._terms += number == signal.SIGTERM
        # What a terminal sends it sends to CMD too: twice, it would cut short what CMD does on the first.
        if self._status is None and self._pid and info.si_code != _SI_KERNEL:
            os.kill(self._pid, number)

    def _reap(self) -> bool:
        """Take the exit status of each child that has ended; tell whether there are others.

        All of them are this process's own to reap: it has adopted them, and nothing else in it waits for any.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._pid:
                code = os.waitstatus_to_exitcode(status)
                self._status = 128 - code if code < 0 else code


def _report(cmd: Sequence[str], left: Iterable[LeftProcess], *, as_json: bool) -> None:
    from pytest_gpuclean.processes.command import shorten_command
    from pytest_gpuclean.processes.secrets import without_secrets
    from pytest_gpuclean.reports.processes import describe_left

    told = [process for process in left if process.ended_by != "itself"]
    if not told:
        return
    if as_json:
        print(json.dumps({"left": [process.to_wire() for process in told]}), file=sys.stderr)
        return
    command = shorten_command(" ".join(without_secrets(cmd)), 80)
    print(f"gpuclean: `{command}` left {len(told)} process{'es' * (len(told) != 1)}", file=sys.stderr)
    for process in told:
        print(f"  {describe_left(process)}\n    {process.command}", file=sys.stderr)
