"""Runs suites one after the other, each in a fork of a process that has everything imported: `python -m faults.server`.

A line of JSON in, a line out. A fork costs some milliseconds, may be killed where it hangs, and leaves nothing behind.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import signal
import sys
import time
import traceback
from pathlib import Path

import psutil
import pytest

import pytest_gpuclean

from .seams import Fault, Seams

_LONGEST_SECONDS = 60


class Outcomes:
    """Notes what became of each test, as everybody else is told."""

    def __init__(self) -> None:
        self.found: dict[str, list[list[str]]] = {}

    def pytest_runtest_logreport(self, report) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash is not None else str(report.longrepr or "")
        line = text.splitlines()[0] if text else ""
        self.found.setdefault(report.nodeid, []).append([str(report.when), str(report.outcome), line])


def load_all() -> None:
    """Import what runs would import, each anew."""
    for module in pkgutil.walk_packages(pytest_gpuclean.__path__, "pytest_gpuclean."):
        if not module.name.endswith("__main__") and ".scripts" not in module.name:
            importlib.import_module(module.name)
    for name in ("numpy", "_pytest.pytester", "xml.etree.ElementTree", "_pytest.junitxml"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def run_suite(job: dict) -> dict:
    """Run a suite in this process."""
    os.chdir(job["folder"])
    sys.path.insert(0, job["folder"])
    os.environ.update(job["environment"])
    seams = Seams(Fault(**job["fault"]) if job["fault"] else None, job["text"])
    outcomes = Outcomes()
    begin = time.perf_counter()
    if job["watched"]:
        seams.begin()
    try:
        status = int(pytest.main(job["arguments"], plugins=[outcomes]))
    except BaseException as error:
        status = repr(error)
        traceback.print_exc()
    finally:
        seams.fault, fault = None, seams.fault
        seams.end()
    return {
        "status": status,
        "outcomes": outcomes.found,
        "counts": dict(seams.counts) if fault is None else {},
        "raised": seams.raised,
        "seconds": time.perf_counter() - begin,
    }


def run_apart(job: dict) -> dict:
    """Run a suite in a fork."""
    folder = Path(job["folder"])
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            descriptor = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout = io.TextIOWrapper(open(1, "wb", buffering=0, closefd=False), write_through=True)
            sys.stderr = io.TextIOWrapper(open(2, "wb", buffering=0, closefd=False), write_through=True)
            result = run_suite(job)
            (folder / "result").write_text(json.dumps(result), encoding="utf-8")
            code = 0
        finally:
            os._exit(code)
    end = time.monotonic() + _LONGEST_SECONDS
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            os.waitpid(pid, 0)
            return {"status": "hung", "outcomes": {}, "counts": {}, "raised": 1, "seconds": _LONGEST_SECONDS}
        time.sleep(0.005)
    if not (folder / "result").exists():
        return {"status": "died", "outcomes": {}, "counts": {}, "raised": 1, "seconds": 0}
    result = json.loads((folder / "result").read_text(encoding="utf-8"))
    for name, file in (("baseline", "baseline.json"), ("output", "output")):
        path = folder / file
        result[name] = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return result


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load_all()
    gc.collect()
    gc.freeze()  # what a run has to walk through is its own
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(run_apart(json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
