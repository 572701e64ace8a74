"""Runs of the suites under `worlds`, with the plugin, without it, and with a fault."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .judging import TEXT
from .seams import Fault

WORLDS = {
    "memory": ["--gpu-clean=comprehensive", "--gpu-leak=fail", "--gpu-leak-explain=4"],
    "processes": ["--gpu-clean=quick", "--gpu-processes=fail"],
    "files": [
        "--gpu-clean=quick",
        "--gpu-leak=fail",
        "--gpu-leak-confirm=1",
        "--gpu-leak-baseline=baseline.json",
        "--gpu-leak-update-baseline",
    ],
    "failing": ["--gpu-clean=quick", "--gpu-leak=fail", "--gpu-oom-retry=1", "--gpu-on-lost=report"],
    "cards": ["--gpu-clean=quick", "--gpu-processes=fail", "--gpu-init=fail"],
}
"""The suites, and what each is run with."""
WITH_CARDS = "cards"
"""That which has a driver with cards: a stand-in, which a process has from its start."""
_ALWAYS = ["-v", "-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "gpuclean", "--junitxml=junit.xml"]
_ON = ["--gpu-settle=0.3", "--gpu-report=report.json", "--gpu-report=report.html", "--gpu-report=report.md"]
_HERE = Path(__file__).parent


class Runner:
    """Runs a suite again and again, in a folder that is made anew for each run.

    Args:
        folder: where the runs may write.
        environment: of the process that they run in, beside what is there.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder / "run"
        path = os.pathsep.join([str(_HERE.parent), *filter(None, sys.path)])
        self._server = subprocess.Popen(
            [sys.executable, "-m", "faults.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        )

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_) -> None:
        self._server.communicate()

    def run_plain(self, world: str) -> dict:
        """Run it as if the plugin were not there."""
        return self._run(world, [*_ALWAYS, "--gpu-clean=off"], None, watched=False)

    def run(self, world: str, fault: Fault | None = None) -> dict:
        """Run it with the plugin; without a fault, all calls are counted."""
        return self._run(world, [*_ALWAYS, *_ON, *WORLDS[world]], fault, watched=True)

    def _run(self, world: str, arguments: list[str], fault: Fault | None, *, watched: bool) -> dict:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(_HERE / "worlds" / world, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(_HERE.parent / "plugin" / "fakegpu.py", self.folder)
        (self.folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        job = {
            "folder": str(self.folder),
            "environment": {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "GITHUB_ACTIONS": ""},
            "arguments": arguments,
            "fault": dataclasses.asdict(fault) if fault else None,
            "watched": watched,
            "text": TEXT,
        }
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())
