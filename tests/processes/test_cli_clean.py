"""`gpuclean ps` and `gpuclean clean`, after runs that were killed and beside runs that are alive."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from processes.alone import alone
from processes.starting import is_alive, orphan_that_executes, wait_for
from processes.victims import Victim
from pytest_gpuclean.cli import main
from pytest_gpuclean.cli.clean import CleanCommand

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are proved by /proc")

ONE = "pid = sleeper().pid; note(pid, 'test_a.py::test_it'); ready(pid, orphan_that_executes())"


def home():
    """Let the command look for ledgers where the test is, and nowhere else."""
    os.environ.pop("XDG_RUNTIME_DIR", None)
    return f"gpuclean-{os.geteuid()}"


def gpuclean(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pytest_gpuclean.cli", *arguments], capture_output=True, text=True, timeout=60
    )


@alone
def test_where_nothing_is_left_nothing_is_done():
    home()
    done = gpuclean("clean")
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing is left of killed runs\n", "")
    done = gpuclean("ps")
    assert done.stdout == "no run is alive, and none that was killed has left a process\n"


@alone
def test_what_a_killed_run_left_is_listed_with_its_proof_and_then_stopped():
    with Victim(ONE, folder=home()) as killed, Victim("ready(sleeper().pid)", folder=home()) as living:
        killed.kill()
        child, orphan = killed.pids
        said = gpuclean("ps").stdout
        assert f"(pid {killed.pid}): killed, begun " in said
        assert (
            f"  sleep (pid {child}), started by test_a.py::test_it: it bears the run's mark in its environment" in said
        )
        assert f"  sleep (pid {orphan}): it bears the run's mark in its environment\n    sleep 100\n" in said
        assert f"(pid {living.pid}): alive, begun " in said
        found = {run["pid"]: run for run in json.loads(gpuclean("ps", "--json").stdout)["runs"]}
        assert [found[killed.pid]["is_alive"], found[living.pid]["is_alive"]] == [False, True]
        assert {process["pid"] for process in found[killed.pid]["processes"]} == {child, orphan}
        assert {process["pid"]: process["proof"] for process in found[living.pid]["processes"]} == {
            living.pids[0]: "cookie"
        }
        status = gpuclean("status").stdout
        assert " left 2 processes; to stop them: gpuclean clean" in status

        dry = gpuclean("clean", "--dry-run")
        assert dry.returncode == 0
        assert f"  sleep (pid {child}): goes on: nothing is stopped this time" in dry.stdout
        assert killed.alive == [True, True]

        done = gpuclean("clean")
        assert done.returncode == 0
        assert f"(pid {killed.pid}) was killed and left 2 processes" in done.stdout
        assert f"  sleep (pid {child}): ended by SIG" in done.stdout
        assert (killed.alive, living.alive) == ([False, False], [True])
        assert gpuclean("clean").stdout == "nothing is left of killed runs\n"


@alone
def test_as_json_with_what_was_done():
    with Victim(ONE, folder=home()) as killed:
        killed.kill()
        dry = json.loads(gpuclean("clean", "--dry-run", "--json").stdout)
        assert dry["dry_run"]
        assert killed.alive == [True, True]
        done = gpuclean("clean", "quick", "--json")
        report = json.loads(done.stdout)
        (run,) = report["killed_runs"]
        assert {process["pid"] for process in run["processes"]} == set(killed.pids)
        assert all(process["ended_by"].startswith("SIG") for process in run["processes"])
        assert f"sleep (pid {killed.pids[0]})" in done.stderr, "what is read as it comes goes to stderr"
        assert killed.alive == [False, False]


@alone
def test_what_is_doubted_is_told_and_left_and_is_no_failure():
    home()
    code = "ready(sleeper(env={**os.environ, 'GPUCLEAN_KEEP': '1'}).pid)"
    with Victim(code, folder=home()) as killed:
        killed.kill()
        assert "left alone: it bears GPUCLEAN_KEEP=1" in gpuclean("ps").stdout
        done = gpuclean("clean")
        assert done.returncode == 0
        assert f"(pid {killed.pids[0]}): goes on: it bears GPUCLEAN_KEEP=1\n    sleep 100" in done.stdout
        assert killed.alive == [True]


@alone
def test_what_cannot_be_told_from_a_living_runs_is_left_and_that_is_a_failure():
    folder = home()
    with Victim("ready(sleeper().pid)", folder=folder) as living, Victim(ONE, folder=folder) as killed:
        killed.kill()
        path = next(path for path in Path(folder).iterdir() if path.name.startswith(f"{living.pid}-"))
        with path.open("r+b") as file:  # written into, so that the lock stays
            file.write(b"!")
        done = gpuclean("clean")
        assert done.returncode == 1
        assert "note: " in done.stdout
        assert "is broken" in done.stdout
        assert killed.alive == [True, True]


@alone
def test_what_is_named_is_told_and_stopped_and_a_dry_run_stops_nothing():
    home()
    name = f"bag_{secrets.token_hex(8)}.py"
    Path(name).write_text("import signal; signal.alarm(100); signal.pause()")
    script = orphan_that_executes(sys.executable, name, environ={"PATH": os.environ["PATH"]})
    wait_for(lambda: name.encode() in Path(f"/proc/{script}/cmdline").read_bytes())
    dry = gpuclean("clean", "--host-wide", f"script:{name}", "--dry-run")
    assert f"script:{name} would stop python {name[:10]}" in dry.stdout
    assert is_alive(script)
    done = gpuclean("clean", "--host-wide", f"port:1,script:{name}", "--host-wide", "port:2")
    assert done.returncode == 0
    assert f"script:{name} stops python {name[:10]}" in done.stdout
    assert f"(pid {script}): ended by SIG" in done.stdout
    assert not is_alive(script)
    done = gpuclean("clean", "--host-wide", f"script:{name}")
    assert done.stdout == "nothing is left of killed runs, and nothing runs that was named\n"


@alone
def test_memory_of_the_machine_is_cleared_where_it_is_named_and_a_refusal_is_a_failure():
    home()
    from unit.cleanup.fakesmi import FakeSmi

    from pytest_gpuclean.cleanup.nvidia_smi import NvidiaSmi
    from pytest_gpuclean.cleanup.system import DropCachesCleaner, GpuResetCleaner, SystemCleaners

    kernel, smi = Path("drop_caches"), FakeSmi(Path.cwd())
    kernel.write_text("")
    reset = GpuResetCleaner(NvidiaSmi(os.fspath(smi.path)), [])
    commands = [CleanCommand(SystemCleaners(DropCachesCleaner(os.fspath(kernel), lambda: None), reset))]
    named = ["clean", "--host-wide", "drop-caches,gpu-reset"]
    assert main(["clean"], commands) == 0
    assert main([*named, "--dry-run"], commands) == 0
    assert (kernel.read_text(), smi.calls) == ("", [])
    assert main(named, commands) == 0
    assert (kernel.read_text(), smi.resets) == ("3\n", 1)
    kernel.unlink()
    assert main(named, commands) == 1


@alone
def test_a_settle_of_0_gives_a_second():
    home()
    code = 'ready(standin("stubborn.py", "ignore", "INT", "TERM").pid)'
    with Victim(code, folder=home()) as killed:
        killed.kill()
        done = gpuclean("clean", "--settle", "0")
        assert done.returncode == 0
        assert "ended by SIGKILL" in done.stdout
        assert killed.alive == [False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clean", "quick", "--host-wide", "ros2"], "--host-wide takes the level comprehensive"),
        (["clean", "full"], "invalid choice: 'full'"),
        (["clean", "--host-wide", "everything"], "--host-wide: 'everything' cannot be named"),
        (["clean", "--settle", "soon"], "argument --settle: 'soon' is no time"),
        (["status", "now"], "unrecognized arguments: now"),
        (["ps", "--all"], "unrecognized arguments: --all"),
    ],
)
def test_what_cannot_be_understood_is_said(arguments, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
