"""One process with very many tests: what it costs and keeps at the end is what it did at the begin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import PLUGIN, ROOT
from benchmarks.soak import checks, system
from benchmarks.soak.checks import Check, Tenth
from benchmarks.soak.kinds import planned

A_MODULE = 500
PYTEST = (sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:logging")
FAILED = 1
"""pytest's exit status where tests failed, as some are to."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What was counted in one run."""

    status: int
    seconds: float
    outcomes: Mapping[str, int]
    tenths: tuple[Tenth, ...]
    log: str


def run(tests: int, mark: str) -> Iterator[Check]:
    """Run the tests without the plugin, then with it, and compare.

    Args:
        tests: how many.
        mark: what the processes of the run bear in their environment.
    """
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        bare = _session(folder / "bare", tests, {"SOAK_BARE": "1", "SOAK_MARK": mark}, [])
        ours = _session(folder / "ours", tests, {"SOAK_MARK": mark}, [*PLUGIN, "--gpu-clean=quick", "--gpu-leak=fail"])
        print(
            f"       serial: {tests:,} tests in {ours.seconds:.0f} s, {bare.seconds:.0f} s without the plugin",
            flush=True,
        )
        yield from _judged(tests, ours, bare)
        yield checks.nothing_left("serial: processes left", system.left_bearing(mark, within_seconds=1.0))
        yield checks.nothing_left("serial: temporary files left", left_files(folder / "ours" / "tmp"))


def _judged(tests: int, ours: Notes, bare: Notes) -> Iterator[Check]:
    for whose, notes, is_bare in (("serial without the plugin", bare, True), ("serial", ours, False)):
        yield Check(f"{whose}: exit status", notes.status == FAILED, f"{notes.status}, {FAILED} is right")
        yield checks.as_planned(whose, planned(tests, is_bare=is_bare), notes.outcomes)
    if not (ours.tenths and bare.tenths):
        yield Check("serial: figures", False, f"a run took no notes:\n{(ours.log + bare.log)[-3000:]}")
        return
    for number, (tenth, without) in enumerate(zip(ours.tenths, bare.tenths, strict=True), 1):
        print(
            f"       tenth {number}: {tenth.test_us:.0f} µs a test ({without.test_us:.0f} without; the loop "
            f"{tenth.reference_us:.0f} and {without.reference_us:.0f}), {tenth.calls:.0f} calls ({without.calls:.0f}), "
            f"{tenth.full_collections} full collections ({without.full_collections}), "
            f"{tenth.rss_bytes / 2**20:.1f} MiB ({without.rss_bytes / 2**20:.1f}), {tenth.objects:,} objects "
            f"({without.objects:,}), {tenth.descriptors} descriptors, {tenth.threads} threads, "
            f"{tenth.children} children"
        )
    yield from checks.constant_cost(ours.tenths, bare.tenths)
    yield from checks.bounded_memory(ours.tenths, bare.tenths)
    yield from checks.same_count(ours.tenths)


def left_files(folder: Path) -> set[str]:
    """List what was left in a folder for temporary files; that for ledgers stays, and is to be empty."""
    return system.files_below(folder) - {f"gpuclean-{os.geteuid()}"}


def _session(folder: Path, tests: int, environment: Mapping[str, str], arguments: list[str]) -> Notes:
    (folder / "tmp").mkdir(parents=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    for first in range(0, tests, A_MODULE):
        (folder / f"test_{first // A_MODULE:04}.py").write_text(_module(first, min(tests, first + A_MODULE)))
    notes, log = folder / "notes.json", folder / "log"
    surroundings = {**clean_environment(folder / "tmp"), **environment}
    begin = time.monotonic()
    with log.open("w") as out:
        done = subprocess.run(
            [*PYTEST, "-p", "benchmarks.soak.meter", *arguments, str(folder)],
            cwd=folder,
            env={**surroundings, "SOAK_TESTS": str(tests), "SOAK_NOTES": str(notes)},
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
        )
    found = json.loads(notes.read_text()) if notes.exists() else {"outcomes": {}, "tenths": []}
    tenths = tuple(Tenth(**tenth) for tenth in found["tenths"])
    return Notes(done.returncode, time.monotonic() - begin, found["outcomes"], tenths, log.read_text()[-3000:])


def clean_environment(temporary: Path) -> dict[str, str]:
    """Give the environment of a run that shares nothing with another one on the machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GPUCLEAN_", "PYTEST_", "XDG_"))}
    cache = os.environ.get("GPUCLEAN_SIMGPU_CACHE")
    return {
        **kept,
        **({"GPUCLEAN_SIMGPU_CACHE": cache} if cache else {}),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TMPDIR": str(temporary),
        "GPUCLEAN_LOCKS": str(temporary),
    }


def _module(first: int, end: int) -> str:
    return f"""\
import pytest

from benchmarks.soak.behaviour import behave, kind_of, tensor


@pytest.fixture(scope="module")
def model():
    return tensor(8)


@pytest.fixture
def work():
    yield tensor(4)


@pytest.mark.parametrize("number", range({first}, {end}))
def test(number, model, request):
    if kind_of(number) == "fixture":
        request.getfixturevalue("work")
    behave(number)
"""
