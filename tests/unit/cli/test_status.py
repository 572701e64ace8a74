"""`gpuclean status`: what the driver says is told, and what nobody says is told as that."""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest

from pytest_gpuclean.cli import main
from pytest_gpuclean.cli.console import Console, format_age
from pytest_gpuclean.cli.status import StatusCommand, run_lines
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.units import GiB, MiB


@dataclass
class Card:
    label: str = "cuda:0"
    name: str = "NVIDIA H100"
    uuid: str = "GPU-1"
    total_bytes: int | None = 80 * GiB
    used_bytes: int | None = 20 * GiB


@dataclass
class User:
    pid: int
    used_bytes: int | None
    kind: str = "compute"


@dataclass
class Use:
    card: Card
    users: object


def status(cards, capsys, *options):
    assert main(["status", *options], [StatusCommand(lambda: cards)]) == 0
    return capsys.readouterr().out


def test_a_card_is_told_with_who_holds_it(capsys):
    gone = 2**22 - 1
    cards = [Use(Card(), (User(gone, 64 * MiB), User(os.getpid(), 19 * GiB), User(1, None)))]
    lines = status(cards, capsys).splitlines()
    assert lines[:2] == ["devices", "  cuda:0 NVIDIA H100: 20.0 GiB of 80.0 GiB in use"]
    assert re.fullmatch(rf"    pid {os.getpid()} .+ \(\w+\): 19\.0 GiB", lines[2])
    assert lines[3] == f"    pid {gone} (not to be seen from here): 64.0 MiB"
    assert re.fullmatch(r"    pid 1 .*: not known", lines[4])


def test_what_the_driver_does_not_say_is_not_known_and_never_0(capsys):
    cards = [
        Use(Card(total_bytes=None, used_bytes=None), Unavailable("nvml", "no permission")),
        Use(Card("GPU 1"), tuple(User(pid, MiB) for pid in range(2**22 - 30, 2**22 - 1))),
    ]
    out = status(cards, capsys)
    assert "  cuda:0 NVIDIA H100: not known of not known in use\n" in out
    assert "    who uses it is not known: no permission\n" in out
    assert "    and 19 more\n" in out
    assert " 0 B" not in out


def test_without_a_driver_the_reason_is_told(capsys):
    out = status(Unavailable("nvml", "libnvidia-ml.so.1 is not there"), capsys)
    assert "  none is known: libnvidia-ml.so.1 is not there\n" in out
    assert "  no  GPU memory of the machine: libnvidia-ml.so.1 is not there\n" in out
    assert re.search(r"^  (yes|no ) processes: ", out, re.M)
    assert re.search(r"^  (yes|no ) drop-caches: ", out, re.M)
    assert re.search(r"^  \d.* of .* available$", out, re.M)


def test_as_json(capsys):
    cards = [Use(Card(), (User(os.getpid(), None),))]
    found = json.loads(status(cards, capsys, "--json"))
    assert found["version"] == 1
    (device,) = found["devices"]
    (user,) = device.pop("users")
    assert device == {
        "device": "cuda:0",
        "name": "NVIDIA H100",
        "uuid": "GPU-1",
        "total_bytes": 80 * GiB,
        "used_bytes": 20 * GiB,
        "users_unknown": "",
    }
    assert (user["pid"], user["used_bytes"]) == (os.getpid(), None)
    assert {"what", "is_possible", "detail"} == set(found["facts"][0])
    assert {"host_memory", "servers", "runs", "notes"} <= set(found)


def test_runs_are_counted():
    runs = [
        {"name": "pytest a (pid 1)", "is_alive": True, "processes": []},
        {"name": "pytest b (pid 2)", "is_alive": True, "processes": [{}]},
        {"name": "pytest c (pid 3)", "is_alive": False, "processes": [{}, {}]},
    ]
    assert list(run_lines(runs)) == [
        "alive: pytest a (pid 1), no processes",
        "alive: pytest b (pid 2), 1 process",
        "killed: pytest c (pid 3) left 2 processes; to stop them: gpuclean clean",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "styled", "cut"),
    [
        (Terminal, {"TERM": "xterm"}, True, True),
        (Terminal, {"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        (Terminal, {"TERM": "dumb"}, False, True),
        (io.StringIO, {"TERM": "xterm"}, False, False),
    ],
)
def test_a_terminal_gets_headings_and_lines_that_fit_and_a_pipe_gets_plain_text(
    stream, environ, styled, cut, monkeypatch
):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    out = stream()
    console = Console(out)
    console.heading("devices")
    console.detail("x" * 200)
    heading, detail = out.getvalue().splitlines()
    assert ("\x1b[" in heading, "\x1b[" in detail) == (styled, styled)
    plain = re.sub(r"\x1b\[\d+m", "", detail)
    assert plain == ("    " + "x" * 73 + "..." if cut else "    " + "x" * 200)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (260_000, "3 days")],
)
def test_ages(seconds, said):
    assert format_age(seconds) == said


def gpuclean(*arguments, **options):
    command = [sys.executable, "-m", "pytest_gpuclean.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_pipe_that_is_closed_is_no_error():
    process = gpuclean("status")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 141
    process.stderr.close()


def test_names_that_the_output_does_not_know_are_written_by_their_numbers():
    code = "import signal, sys; signal.alarm(60); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        ["tensorboard", "-c", code, "naïve"],
        executable=sys.executable,
        env={**os.environ, "PYTHONHOME": sys.base_prefix},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as board:
        assert board.stdout.readline() == "ready\n"
        out, err = gpuclean("status", env={**os.environ, "PYTHONIOENCODING": "ascii"}).communicate(timeout=60)
        board.stdin.close()
        board.wait(60)
    assert err == ""
    assert f"  TensorBoard (pid {board.pid}" in out
    assert "na\\xefve" in out
