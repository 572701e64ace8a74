"""Fetches a suite and runs it, where it finds nothing of the user's."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT
from benchmarks.peers.comparing import Said, read
from benchmarks.peers.suites import Suite

PASSED_ON = ("PIP_CERT", "SSL_CERT_FILE")
LIMIT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a suite."""

    said: Said
    cpu_seconds: float
    """Of the run and of the processes that it waited for."""
    wall_seconds: float


class CannotRun(Exception):  # noqa: N818  # it is no fault of ours
    """The suite cannot be fetched, or does not run here even without the plugin."""


def fetch(suite: Suite, work: Path, sources: Path | None) -> Path:
    """Get the source distribution, check that it is the one that was read, and unpack it.

    Args:
        suite: what to get.
        work: a folder of our own.
        sources: where it is already; by default pip downloads it.

    Raises:
        CannotRun: it is not to be had, or is another one.
    """
    if sources is None:
        sources = work / "sources"
        # pip runs the stranger's build for its metadata, therefore it checks the hash first.
        wanted = work / "requirements.txt"
        wanted.write_text(f"{suite.name}=={suite.version} --hash=sha256:{suite.sha256}\n", encoding="utf-8")
        # What it is built with comes as wheels: to build the builders takes minutes.
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", suite.name]
        done = subprocess.run(
            [*pip, "--require-hashes", "-d", str(sources), "-r", str(wanted)],
            env=_environment(work),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CannotRun(f"pip: {done.stderr.strip()[-500:]}")
    archive = sources / f"{suite.folder}.tar.gz"
    if not archive.is_file():
        raise CannotRun(f"{archive.name} is not in {sources}")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != suite.sha256:
        raise CannotRun(f"{archive.name} is not the one that was read: its hash differs")
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    return work / suite.folder


def run(suite: Suite, folder: Path, work: Path, arguments: tuple[str, ...]) -> Run:
    """Run a suite once.

    Args:
        suite: what to run.
        folder: where it is unpacked.
        work: a folder of our own.
        arguments: for pytest, beside the suite's own.

    Raises:
        CannotRun: it takes too long.
    """
    record, log = work / "record.jsonl", work / "log.txt"
    record.unlink(missing_ok=True)
    environment = {
        **_environment(work),
        **suite.environment,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "PEERS_RECORD": str(record),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    loaded = [part for plugin in ("benchmarks.peers.recorder", *suite.plugins) for part in ("-p", plugin)]
    # Its own options may ask for coverage and colours.
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", *loaded]
    began = time.perf_counter()
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [*command, *arguments, *suite.tests], cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
        cpu_seconds = _wait(process, began)
    wall_seconds = time.perf_counter() - began
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    said = read(lines)
    if said.status is None:
        raise CannotRun(f"it broke off:\n{log.read_text(encoding='utf-8', errors='replace')[-1500:]}")
    return Run(said, cpu_seconds, wall_seconds)


def _wait(process: subprocess.Popen[bytes], began: float) -> float:
    """Wait for a process and say what processor time it took; end it where it takes too long."""
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime
        if time.perf_counter() - began > LIMIT_SECONDS:
            process.kill()
            process.wait()
            raise CannotRun(f"it took more than {LIMIT_SECONDS} s")
        time.sleep(0.05)


def _environment(work: Path) -> dict[str, str]:
    """Give the strangers a home of their own, and none of the user's variables: there may be tokens among them."""
    home = work / "home"
    home.mkdir(exist_ok=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"])
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {
        **kept,
        "PATH": path,
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
