"""`python -m benchmarks.shards`: how big the reports of a suite in shards are, and what merging them takes."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT

BODIES = {"nothing": "    pass", "a device": "    torch.empty(64 << 20, dtype=torch.uint8, device='simgpu')"}
"""What a test of each suite does, on the simulated accelerator."""
LEAK = "\nKEPT = []\n\ndef test_leaks():\n    KEPT.append(torch.empty(4 << 20, dtype=torch.uint8, device='simgpu'))\n"
PER_MODULE = 100
SIZES = ((1, 1_000), (10, 1_000), (100, 1_000), (300, 1_000))
FORMATS = ("json", "html", "md")


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What one process took."""

    cpu_seconds: float
    """Of the processor: other programs disturb it least."""
    peak_bytes: int


def main() -> int:
    """Run a suite of each kind, and merge ever more shards of the one that has more to tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards", description=__doc__)
    parser.add_argument("--tests", type=int, default=1_000, help="of each shard that is run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| a test uses | tests | leaks | JSON, bytes a test | HTML, bytes a test | Markdown, bytes |")
        print("| --- | --- | --- | --- | --- | --- |")
        for uses, leaks in (("nothing", False), ("a device", False), ("a device", True)):
            print(_suite_row(folder, uses, options.tests, leaks=leaks), flush=True)
        columns = "JSON read, MiB | merged into | CPU seconds | peak of the process, MiB | MiB written"
        print(f"\n| shards | tests in all | {columns} |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        shard = (folder / "one.json").read_text(encoding="utf-8")
        for shards, tests in SIZES:
            for row in _merge_rows(folder, shard, shards, tests):
                print(row, flush=True)
    return 0


def _suite_row(folder: Path, uses: str, tests: int, *, leaks: bool) -> str:
    """Run a suite with one leak a module or none; its report is left as `one.json`."""
    suite = folder / "suite"
    suite.mkdir(exist_ok=True)
    head = "import pytest\nimport torch\n\n"
    body = f"@pytest.mark.parametrize('n', range({PER_MODULE - leaks}))\ndef test_it(n):\n{BODIES[uses]}\n"
    modules = tests // PER_MODULE
    for number in range(modules):
        (suite / f"test_{number:03}.py").write_text(head + body + LEAK * leaks, encoding="utf-8")
    (suite / "conftest.py").write_text("import simgpu\nsimgpu.load()\n", encoding="utf-8")
    reports = [f"--gpu-report={folder / 'one'}.{suffix}" for suffix in FORMATS]
    _run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *reports, str(suite)], folder, codes=(0,))
    size = {suffix: (folder / f"one.{suffix}").stat().st_size for suffix in FORMATS}
    ran = modules * PER_MODULE
    page, text = f"{size['html'] / ran:,.0f}", f"{size['md']:,}"
    return f"| {uses} | {ran:,} | {modules * leaks} | {size['json'] / ran:,.0f} | {page} | {text} |"


def _merge_rows(folder: Path, shard: str, shards: int, tests: int) -> Iterator[str]:
    """Make shards of one report, each of a run of its own, and merge them into each format by itself."""
    files = list(_shards(folder / f"of_{shards}", shard, shards))
    read_bytes = sum(file.stat().st_size for file in files)
    for suffix in FORMATS:
        target = folder / f"all.{suffix}"
        command = [sys.executable, "-m", "pytest_gpuclean.cli", "report", "merge", *map(str, files), "-o", str(target)]
        took = _run(command, folder, codes=(0,))
        figures = f"{took.cpu_seconds:.1f} | {took.peak_bytes / 2**20:,.0f} | {target.stat().st_size / 2**20:,.2f}"
        yield f"| {shards} | {shards * tests:,} | {read_bytes / 2**20:,.1f} | {suffix} | {figures} |"


def _shards(folder: Path, shard: str, count: int) -> Iterator[Path]:
    folder.mkdir()
    for number in range(1, count + 1):
        found = json.loads(shard)
        (run,) = found["runs"]
        run["id"] = f"{run['id']}-{number}"
        run["shard"] = {"index": number, "total": count, "source": "--splits"} if count > 1 else None
        for test in run["tests"]:
            test["test"] = f"shard_{number:03}/{test['test']}"
        path = folder / f"{number}.json"
        path.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
        yield path


def _run(command: Sequence[str], folder: Path, codes: Sequence[int]) -> Took:
    """Run a process, and ask the system how much memory it had at its peak."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""}
    with (folder / "log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in codes:
            log.seek(0)
            raise RuntimeError(f"{command[:6]} ended with {process.returncode}:\n{log.read()[-3000:]}")
    return Took(cpu_seconds=usage.ru_utime + usage.ru_stime, peak_bytes=usage.ru_maxrss * 1024)


if __name__ == "__main__":
    sys.exit(main())
