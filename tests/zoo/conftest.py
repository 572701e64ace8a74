"""Where the zoo's tests allocate, and a record of what came of each for the one who runs the zoo.

Every file is a test module as people write them. `FLAGGED` says which of its tests have an error of the plugin's at
their teardown, and what that says; `HELD` who is said to hold the memory (one of several), with `N` for places in
lists and numbers of threads; `FLAGGED_SOMEWHERE` what has to be said on some test of the file. Files that are called
`test_host_*` run on host memory alone, `test_device_*` on the simulated accelerator alone.
"""

import json
import os
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

DEVICE = os.environ.get("GPUCLEAN_ZOO_DEVICE", "cpu")
collect_ignore_glob = ["*/test_device_*.py" if DEVICE == "cpu" else "*/test_host_*.py"]

if DEVICE == "simgpu":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import simgpu

    simgpu.load()


@pytest.fixture(scope="session")
def device() -> str:
    return "cpu" if DEVICE == "cpu" else "simgpu:0"


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get("GPUCLEAN_ZOO_RECORD")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(path)), "zoo-recorder")


class Recorder:
    """Writes every report of a run to a file, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        record = {
            "nodeid": report.nodeid,
            "when": report.when,
            "outcome": report.outcome,
            "xfail": hasattr(report, "wasxfail"),
            "text": report.longreprtext,
            "crash": crash and f"{Path(crash.path).name}:{crash.lineno}: {crash.message.partition(' ')[0]}",
            "told": "\n".join(text for name, text in report.sections if name == "gpuclean"),
            "seconds": report.duration,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(record)}\n")
