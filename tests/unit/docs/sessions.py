"""Sessions at a terminal as pages show them: `$ ` and a command, then what it says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest_gpuclean

SCRIPT = Path(sys.executable).with_name("pytest")
"""It has not the working directory on its path, as `python -m pytest` has."""
SOURCE = Path(pytest_gpuclean.__file__).parents[1]
PROGRAMS = {
    "pytest": [str(SCRIPT)] if SCRIPT.exists() else ["-m", "pytest"],
    "gpuclean": ["-m", "pytest_gpuclean.cli"],
    "python": [],
}
SECONDS = 100
VARIES = (
    (r"\d+(?:\\?\.\d+)?\\? ?(?:ms|s)\b", r"[\\d.]+ ?(?:ms|s)"),  # times
    (r"pid\\ \d+", r"pid\\ \\d+"),
    (r"cpu\\ \d+\\\.\d\\ MiB", r"cpu\\ [\\d.]+\\ MiB"),  # what is in use; what leaked stands in front of its device
    (r"={3,}", "=+"),
    (r"_{3,}", "_+"),
    (r"\\\.\\\.\\\.", ".*"),
)
"""What differs from run to run, as it stands in an escaped line, and what is taken for it."""


def steps(text):
    """Give each command of a session, with what it is to say."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, said = part.partition("\n")
        yield command, said


def run(command, folder):
    """Run a command of a page; give what it says."""
    words = shlex.split(command, comments=True)
    told = dict(os.environ)
    for name in ("GPUCLEAN_RUN", "PYTEST_CURRENT_TEST", "GITHUB_ACTIONS", "COLUMNS"):
        told.pop(name, None)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        told[name] = value
    if words[0] == "cat":
        return (folder / words[1]).read_text(encoding="utf-8")
    there = folder / "tmp"  # ledgers are below it: other runs of this machine are none of a page's business
    there.mkdir(exist_ok=True)
    told |= {
        "PYTHONPATH": os.pathsep.join([str(SOURCE), told.get("PYTHONPATH", "")]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # without the plugins that this environment happens to have
        "PYTEST_ADDOPTS": "-p gpuclean -p no:cacheprovider",
        "TMPDIR": str(there),
        "CUDA_VISIBLE_DEVICES": "",
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), told["PATH"]]),
    }
    if words[0] in PROGRAMS:
        words[:1] = [sys.executable, *PROGRAMS[words[0]]]
    with (folder / "tmp" / "said").open("wb") as out:  # no pipe: a process that is left would hold it open
        subprocess.run(
            words, cwd=folder, env=told, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, timeout=SECONDS
        )
    return (folder / "tmp" / "said").read_text(encoding="utf-8", errors="replace")


def says(expected, said):
    """Whether a program says what a page shows. A line `...` stands for any lines, `...` in a line for any text."""
    lines = []
    for line in expected.splitlines():
        if line.strip() == "...":
            lines.append(r"(?:.*\n)*?")
            continue
        pattern = re.escape(line)
        for varying, taken in VARIES:
            pattern = re.sub(varying, taken, pattern)
        lines.append(rf"{pattern}\n")
    return re.fullmatch("".join(lines), said if said.endswith("\n") or not said else f"{said}\n") is not None
