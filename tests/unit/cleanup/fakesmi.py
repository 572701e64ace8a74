"""A stand-in for nvidia-smi: a program that answers what a test has told it to, and writes down its calls."""

import json
import os
import sys
from pathlib import Path

PROGRAM = """#!{python}
import json, sys, time
world = json.load(open({world!r}))
call = sys.argv[1]
with open({calls!r}, "a") as calls:
    calls.write(call + "\\n")
answer = world.get(call.partition("=")[0], {{}})
time.sleep(answer.get("seconds", 0))
sys.stdout.write(answer.get("says", ""))
sys.exit(answer.get("status", 0))
"""
IDLE = "0, 0, Disabled\n1, 4, Disabled\n"


class FakeSmi:
    """By default two GPUs that nobody uses, and a reset that works."""

    def __init__(self, folder: Path, name: str = "nvidia-smi") -> None:
        self.path = folder / name
        self._world, self._calls = folder / "world.json", folder / "calls"
        self._answers: dict[str, dict[str, object]] = {}
        self.path.write_text(
            PROGRAM.format(python=sys.executable, world=os.fspath(self._world), calls=os.fspath(self._calls))
        )
        self.path.chmod(0o755)
        self.answers("--query-gpu", IDLE)

    def answers(self, call: str, says: str = "", *, status: int = 0, seconds: float = 0) -> None:
        """Say what comes of a call from now on."""
        self._answers[call] = {"says": says, "status": status, "seconds": seconds}
        self._world.write_text(json.dumps(self._answers))

    @property
    def calls(self) -> list[str]:
        """What it was asked, without the columns."""
        return [line.partition("=")[0] for line in self._calls.read_text().split()] if self._calls.exists() else []

    @property
    def resets(self) -> int:
        """How often it was told to reset."""
        return self.calls.count("--gpu-reset")
