"""`python -m benchmarks.processes [--quick]`: what looking for processes costs, and how long stopping them takes.

Beside it, in the same run, what suites do by hand: psutil's children, environments, and terminate, wait, kill.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.crowd import crowd
from benchmarks.measure import ROOT, Extent, Point, Row
from benchmarks.pace import Pace

STANDINS = ROOT / "tests" / "processes" / "standins"
LIFE_SECONDS = 110
BELOW = 5
"""How many processes are below the one that looks, where there are some."""


def run(extent: Extent) -> Iterator[Row]:
    """Measure the looks at 100, 1,000 and 3,000 processes on the machine, then the stopping."""
    quick = extent.quick
    for processes in (100, 1000) if quick else (100, 1000, 3000):
        yield from _looking(processes, rounds=20 if quick else 60)
    yield from _stopping(rounds=2 if quick else 5)
    for children in (100, 1000) if quick else (100, 300, 1000, 3000):
        yield from _stopping_many(children, rounds=1 if quick else 2)


def _looking(processes: int, rounds: int) -> Iterator[Row]:
    with crowd(processes):
        figures = _inside("look", str(rounds))
    group = f"processes: looking, {processes:,} others on the machine"
    us = {name: seconds * 1e6 for name, seconds in figures.items()}
    yield Row(group=group, what="is there any child: none", measured=us["none"], unit="µs", budget=10.0)
    yield Row(group=group, what="is there any child: some", measured=us["some"], unit="µs", budget=10.0)
    yield Row(
        group=group,
        what="the watch of a whole test: no child",
        measured=us["test_none"],
        unit="µs",
        budget=10.0,
        promise="no children",
        point=Point(panel="watch", line="no child", x=processes),
    )
    yield Row(
        group=group,
        what=f"the watch of a whole test: {BELOW} descendants, a fixture's",
        measured=us["test_some"],
        unit="µs",
        budget=100.0,
        promise="children",
        point=Point(panel="watch", line=f"{BELOW} descendants", x=processes),
    )
    yield Row(
        group=group,
        what=f"walk over {BELOW} descendants",
        measured=us["walk"],
        unit="µs",
        budget=100.0,
        promise="children",
        compared=f"1/{us['psutil_children'] / us['walk']:.0f} of psutil's children ({us['psutil_children']:.0f} µs)",
    )
    yield Row(
        group=group,
        what="scan of all environments, with proofs",
        measured=us["scan"] / 1e3,
        unit="ms",
        compared=f"1/{us['psutil_environ'] / us['scan']:.1f} of psutil's environ ({us['psutil_environ'] / 1e3:.0f} ms)",
    )


def _stopping(rounds: int) -> Iterator[Row]:
    kinds = [("ros", "ROS-like launch with two nodes", 300.0)]
    if importlib.util.find_spec("tensorboard") is not None:
        kinds.insert(0, ("tensorboard", "TensorBoard, until its port is free", 150.0))
    for kind, what, budget in kinds:
        figures = _inside("stop", kind, str(rounds))
        ours, by_hand = 1e3 * figures["ours"], 1e3 * figures["by_hand"]
        yield Row(
            group="processes: stopping",
            what=what,
            measured=ours,
            unit="ms",
            budget=budget,
            promise=kind,
            compared=f"{ours / by_hand:.2f} of psutil's terminate, wait and kill ({by_hand:.0f} ms)",
        )


def _stopping_many(children: int, rounds: int) -> Iterator[Row]:
    figures = _inside("stop", str(children), str(rounds))
    group = "processes: stopping many children that sleep"
    for line, key in (("the plugin", "ours"), ("psutil's terminate, wait and kill", "by_hand")):
        yield Row(
            group=group,
            what=f"{children:,} children: {line}",
            measured=1e3 * figures[key],
            unit="ms",
            compared=f"{figures['ours'] / figures['by_hand']:.2f} of psutil's" if key == "ours" else "",
            point=Point(panel="stopping", line=line, x=children),
        )


def _inside(*arguments: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.processes", "--inside", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": folder},
            cwd=folder,
            stdout=subprocess.PIPE,
            check=True,
        )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _least_seconds(call: Callable[[], object], rounds: int, times: int = 1) -> float:
    """Time a call; the quickest round counts, which other programs on the machine disturb least."""
    taken, pace = [], Pace()
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(times):
            call()
        taken.append((time.perf_counter() - begin) / times)
        pace.note()
    return pace.even(min(taken))


def _look(rounds: int) -> dict[str, float]:
    import psutil

    from pytest_gpuclean.processes.discovery import Discovery, has_children
    from pytest_gpuclean.processes.ownership import Run
    from pytest_gpuclean.processes.watch import ProcessWatch

    none = _least_seconds(has_children, rounds, times=100)
    run = Run()
    discovery, watch = Discovery(run), ProcessWatch(run)

    def test() -> None:
        watch.open("test")
        if not watch.is_quiet():
            raise AssertionError("what a fixture has started is none of the test's")

    test_none = _least_seconds(test, rounds, times=10)
    watch.begin_setup(1, "servers", "session")
    script = f"for i in 2 3 4 {BELOW}; do sleep {LIFE_SECONDS} & done; echo ready; wait"
    tree = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert tree.stdout is not None
    tree.stdout.readline()
    time.sleep(0.1)  # until the last one has executed: nothing is measured here
    watch.end_setup(1)

    def environments() -> None:
        for process in psutil.process_iter():
            try:
                process.environ().get("GPUCLEAN_RUN")
            except psutil.Error:
                continue

    slow = max(3, rounds // 6)
    assert len(discovery.below()) == BELOW
    figures = {
        "none": none,
        "test_none": test_none,
        "test_some": _least_seconds(test, rounds, times=10),
        "some": _least_seconds(has_children, rounds, times=100),
        "walk": _least_seconds(discovery.below, rounds, times=10),
        "scan": _least_seconds(discovery.everywhere, slow),
        "psutil_children": _least_seconds(lambda: psutil.Process().children(recursive=True), slow),
        "psutil_environ": _least_seconds(environments, slow),
    }
    _stop_by_hand()
    tree.wait()
    return figures


def _start(kind: str) -> None:
    if kind.isdigit():
        for _ in range(int(kind)):
            os.posix_spawnp("sleep", ["sleep", str(LIFE_SECONDS)], os.environ)
        return
    if kind == "ros":
        launch = subprocess.Popen(
            [sys.executable, str(STANDINS / "ros2"), "launch", "demo", "demo.launch.py"], stdout=subprocess.PIPE
        )
        assert launch.stdout is not None
        launch.stdout.readline()
        return
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", ".", "--port", "0", "--host", "127.0.0.1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    info = Path(os.environ["TMPDIR"]) / ".tensorboard-info" / f"pid-{server.pid}.info"
    while not info.exists():
        time.sleep(0.05)


def _stop_by_hand() -> None:
    import psutil

    processes = psutil.Process().children(recursive=True)
    for process in processes:
        process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=3)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=3)


def _reap() -> None:
    """Ask for the end of what was not started by a Popen, so that the next round finds no zombies."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return


def _stop(kind: str, rounds: int) -> dict[str, float]:
    from pytest_gpuclean.processes.discovery import Discovery
    from pytest_gpuclean.processes.ownership import Run
    from pytest_gpuclean.processes.stop import stop

    discovery = Discovery(Run())

    def ours() -> None:
        stop(discovery.below(), discovery, settle_seconds=10.0, may_live=lambda key: False)

    taken: dict[str, list[float]] = {"ours": [], "by_hand": []}
    pace = Pace()
    for _ in range(rounds):
        for name, call in (("ours", ours), ("by_hand", _stop_by_hand)):
            _start(kind)
            begin = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - begin)
            _reap()
            pace.note()
    return {name: pace.even(statistics.median(seconds)) for name, seconds in taken.items()}


def main() -> int:
    """Measure and print; the exit status says whether every budget is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer processes and rounds")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        what, *rest = options.inside
        figures = _look(int(rest[0])) if what == "look" else _stop(rest[0], int(rest[1]))
        print(json.dumps(figures))
        return 0
    missed = 0
    group = ""
    for row in run(Extent(quick=options.quick)):
        if row.group != group:
            group = row.group
            print(f"\n{group}")
        budget = "" if row.budget is None else f"budget {row.budget:g} {row.unit}{'' if row.is_met else ', MISSED'}"
        print(f"  {row.what:<40} {row.measured:>8.1f} {row.unit}  {row.compared:<50} {budget}", flush=True)
        missed += not row.is_met
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
