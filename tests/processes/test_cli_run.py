"""`gpuclean run -- CMD`: what CMD leaves is stopped, whatever becomes of CMD, and its exit status is handed on."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from processes.alone import alone
from processes.starting import STANDINS, end, is_alive, sleeper, wait_for
from pytest_gpuclean.cli import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux alone")

GPUCLEAN = [sys.executable, "-m", "pytest_gpuclean.cli"]


def environ():
    """The ledger goes where the test is."""
    return {**{name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}, "TMPDIR": os.getcwd()}


def run(*cmd, options=(), **more):
    return subprocess.run(
        [*GPUCLEAN, "run", *options, "--", *cmd], capture_output=True, text=True, env=environ(), timeout=60, **more
    )


def shell(code, *options):
    return run("sh", "-c", code, options=options)


def start(*cmd, **more):
    return subprocess.Popen(
        [*GPUCLEAN, "run", "--", *cmd], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ(), **more
    )


def ledgers():
    return [path for folder in Path().glob("gpuclean-*") for path in folder.iterdir()]


@alone
def test_where_nothing_is_left_nothing_is_said():
    for code, status in (("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)):
        done = shell(f"echo out; echo err >&2; {code}")
        assert (done.returncode, done.stdout, done.stderr) == (status, "out\n", "err\n")
    assert shell("sleep 0.05 & exit 0").stderr == "", "it goes by itself"
    assert ledgers() == []


@alone
def test_the_statuses_of_a_shell():
    Path("plain").write_text("no program")
    Path("plain").chmod(0o600)
    for cmd, status, said in (
        (["no-such-command"], 127, "gpuclean run: no-such-command: command not found\n"),
        (["./missing"], 127, "gpuclean run: ./missing: command not found\n"),
        (["./plain"], 126, "gpuclean run: ./plain: Permission denied\n"),
        (["."], 126, "gpuclean run: .: Permission denied\n"),
    ):
        done = run(*cmd)
        assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "required: COMMAND"),
        (["run"], "there is no CMD"),
        (["run", "--"], "there is no CMD"),
        (["run", "--settle", "soon", "--", "true"], "argument --settle: 'soon' is no time"),
        (["run", "--nothing", "--", "true"], "--nothing"),
        (["nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_what_cannot_be_understood_is_said(argv, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_version_and_help(capsys):
    for option, said in (("--version", "gpuclean "), ("--help", "run a command, and stop every process")):
        with pytest.raises(SystemExit) as caught:
            main([option])
        assert caught.value.code == 0
        assert said in capsys.readouterr().out


@alone
def test_what_is_behind_the_dashes_is_cmds_own():
    assert run("echo", "--", "--json", "-x").stdout == "-- --json -x\n"
    done = subprocess.run(
        [*GPUCLEAN, "run", "echo", "--json", "--", "x"], capture_output=True, text=True, env=environ()
    )
    assert done.stdout == "--json -- x\n"


LEAVES = """
sleep 100 & echo $!
setsid sleep 100 & echo $!
env -i sleep 100 & echo $!
(setsid sh -c 'env -i sleep 100 & echo $!; wait' &)
sleep 0.3
"""


@alone
def test_every_descendant_that_is_left_is_stopped_and_told():
    done = shell(LEAVES + "exit 3")
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 4
    assert [is_alive(pid) for pid in pids] == [False] * 4
    assert done.returncode == 3
    assert "left 5 processes" in done.stderr.splitlines()[0]
    for pid in pids:
        assert f"(pid {pid}): ended by SIG" in done.stderr
    assert ledgers() == []


@alone
def test_and_so_it_is_where_cmd_was_killed():
    done = shell(LEAVES + "kill -9 $$")
    assert [is_alive(int(pid)) for pid in done.stdout.split()] == [False] * 4
    assert done.returncode == 137


@alone
def test_the_stubborn_ones_are_killed():
    stubborn = f"{sys.executable} {STANDINS}/stubborn.py"
    done = shell(
        f"{stubborn} ignore INT TERM > one & {stubborn} catch INT TERM > two & "
        "until [ -s one ] && [ -s two ]; do sleep 0.02; done",
        "--settle",
        "4",
        "--json",
    )
    left = json.loads(done.stderr)["left"]
    assert [each["ended_by"] for each in left] == ["SIGKILL", "SIGKILL"]
    assert [is_alive(each["pid"]) for each in left] == [False, False]
    assert all("stubborn.py" in each["command"] for each in left)


@alone
def test_what_came_before_is_not_touched_nor_what_is_to_be_kept():
    quietly = "sleep 100 > /dev/null 2>&1 & echo $!"
    inner = f"sh -c 'GPUCLEAN_KEEP=1 {quietly}'"
    code = f"{quietly}; exec {sys.executable} -m pytest_gpuclean.cli run -- {inner}"
    done = subprocess.run(["sh", "-c", code], capture_output=True, text=True, env=environ(), timeout=60)
    before, kept = (int(pid) for pid in done.stdout.split())
    try:
        assert (is_alive(before), is_alive(kept)) == (True, True)
        assert f"(pid {kept}): goes on: it bears GPUCLEAN_KEEP=1" in done.stderr
        assert str(before) not in done.stderr
    finally:
        end(before, kept)


@alone
def test_somebody_elses_processes_are_not_touched():
    innocent = sleeper()
    shell(LEAVES)
    assert is_alive(innocent.pid)
    end(innocent.pid)


TELLS = """
import signal, sys, time
signal.alarm(100)
seen = []
for name in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "WINCH"):
    signal.signal(getattr(signal, "SIG" + name), lambda number, _: seen.append(signal.Signals(number).name[3:]))
print("ready", flush=True)
while "USR2" not in seen:
    time.sleep(0.01)
print(*seen, flush=True)
sys.exit(9)
"""


@alone
def test_signals_are_handed_on():
    process = start(sys.executable, "-c", TELLS)
    assert process.stdout.readline() == "ready\n"
    for name in ("INT", "TERM", "HUP", "QUIT", "USR1", "WINCH", "USR2"):
        process.send_signal(getattr(signal, f"SIG{name}"))
        time.sleep(0.05)
    out, err = process.communicate(timeout=60)
    assert sorted(out.split()) == sorted(["INT", "TERM", "HUP", "QUIT", "USR1", "WINCH", "USR2"])
    assert (process.returncode, err) == (9, "")


@alone
def test_one_term_ends_cmd_in_its_own_time_and_a_second_does_not_wait_for_it():
    process = start(sys.executable, str(STANDINS / "stubborn.py"), "catch", "INT", "TERM")
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 137
    assert "ended by SIGKILL" in err


@alone
def test_ctrl_c_in_a_terminal_reaches_cmd_once():
    """A second one would cut short what pytest does on the first."""
    code = (
        "import signal, time\nsignal.alarm(100)\nseen = []\nsignal.signal(2, lambda *_: seen.append(2))\n"
        "print('ready', flush=True)\nend = time.monotonic() + 1\n"
        "while time.monotonic() < end: time.sleep(0.05)\nprint('seen', len(seen), flush=True)\n"
    )
    child, terminal = pty.fork()
    if child == 0:
        signal.alarm(100)
        os.execvpe(GPUCLEAN[0], [*GPUCLEAN, "run", "--", sys.executable, "-c", code], environ())
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    while not re.search(rb"seen \d", said):
        said += os.read(terminal, 1000)
    _, status = os.waitpid(child, 0)
    assert b"seen 1" in said, said
    assert os.waitstatus_to_exitcode(status) == 0


@alone
def test_cmd_finds_signals_as_a_shell_leaves_them():
    lines = run("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status").stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        # 32 and 33 are the C library's own, and posix_spawn leaves them ignored.
        assert int(line.split()[1], 16) & ~0x180000000 == 0, line


@alone
def test_an_ignored_sigchld_is_no_hindrance():
    done = subprocess.run(
        [*GPUCLEAN, "run", "--", "sh", "-c", "exit 5"],
        env=environ(),
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
        timeout=60,
    )
    assert done.returncode == 5


@alone
def test_a_run_in_a_run():
    done = run(*GPUCLEAN, "run", "--", "sh", "-c", "sleep 100 & echo $!; exit 4")
    assert done.returncode == 4
    assert not is_alive(int(done.stdout))
    assert done.stderr.count("left 1 process") == 1, "told by the inner one"


@alone
def test_what_it_leaves_when_it_is_killed_itself_is_known_by_its_ledger():
    process = start("sh", "-c", "sleep 100 & echo $!; wait")
    pid = int(process.stdout.readline())
    wait_for(lambda: len(ledgers()) == 1)
    process.kill()
    process.wait()
    from pytest_gpuclean.processes.left_runs import sweep

    found = sweep(settle_seconds=10, folders=[os.path.abspath(next(Path().glob("gpuclean-*")))])
    assert pid in [left.pid for left in found.runs[0].processes]
    assert not is_alive(pid)


def test_it_loads_nothing_heavy():
    code = "import sys; from pytest_gpuclean.cli import main; main(['run', '--', 'true']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "numpy", "tensorflow", "jax", "psutil", "pynvml", "pytest", "subprocess", "importlib.metadata"}
    assert heavy.isdisjoint(loaded)
