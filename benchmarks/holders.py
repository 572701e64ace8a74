"""`python -m benchmarks.holders [--quick]`: what finding out who holds leaked memory costs, on a large heap.

Beside it, where they are installed, what else names who refers to an object: objgraph and guppy3.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, Extent, Row
from benchmarks.pace import Pace

HEAP_OBJECTS = 1_000_000
TENSOR_BYTES = 4096
BUDGET_MS = 1000.0
BUDGET_MIB = 300.0
OTHERS_SECONDS = 60
OTHERS_CASES = ("list", "hook")
QUICK_CASES = ("list", "hook", "nobody")
CASES = {
    "list": "in a list of a module",
    "objects": "in objects in a list of a module",
    "hook": "in a closure, a hook of a model",
    "arrays": "in a dict of arrays of a library",
    "chain": "at the end of 10,000 linked objects",
    "nobody": "held by code in C alone",
}
COUNTS = {"list": (1, 1_000, 100_000), "objects": (1, 1_000, 100_000)}


def run(extent: Extent) -> Iterator[Row]:
    """Measure each way of holding, then the others on the simplest one."""
    quick = extent.quick
    group = f"who holds it: a heap of {HEAP_OBJECTS:,} objects, torch{' and TensorFlow' if _has('tensorflow') else ''}"
    for case, what in CASES.items():
        if quick and case not in QUICK_CASES:
            continue
        for count in COUNTS.get(case, (1,)):
            if quick and count > 1:
                continue
            figures = _inside("ours", case, str(count), "2" if quick else "5")
            label = f"{count:,} {'tensor' if count == 1 else 'tensors'} {what}"
            assert figures is not None
            compared = _answered(figures)
            milliseconds = 1e3 * figures["seconds"]
            yield Row(
                group=group,
                what=label,
                measured=milliseconds,
                unit="ms",
                budget=BUDGET_MS,
                compared=compared,
                promise="holders",
            )
            yield Row(
                group=group, what=f"{label}: memory for it", measured=figures["mib"], unit="MiB", budget=BUDGET_MIB
            )
    for other in () if quick else ("objgraph", "guppy"):
        if _has(other):
            yield from _other(group, other, OTHERS_CASES if extent.long else OTHERS_CASES[:1])


def _other(group: str, other: str, cases: Sequence[str]) -> Iterator[Row]:
    for case in cases:
        figures = _inside(other, case, "1", "1")
        what = f"{other}: 1 tensor {CASES[case]}"
        if figures is None:
            yield Row(group=group, what=f"{what}: no answer within", measured=1e3 * OTHERS_SECONDS, unit="ms")
            continue
        yield Row(group=group, what=what, measured=1e3 * figures["seconds"], unit="ms", compared=_answered(figures))
        yield Row(group=group, what=f"{what}: memory for it", measured=figures["mib"], unit="MiB")


def _answered(figures: dict[str, float]) -> str:
    return "" if figures["answers"] == 1 else f"the holder was named in {figures['answers']:.0%} of the rounds"


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _inside(*arguments: str) -> dict[str, float] | None:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.holders", "--inside", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=None if arguments[0] == "ours" else OTHERS_SECONDS + 30,
        )
    except subprocess.TimeoutExpired:
        return None
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures if figures["seconds"] >= 0 else None


class _Node:
    def __init__(self, value: object) -> None:
        self.value = [value]
        self.more: dict[str, tuple[object, list[object]]] = {"key": (value, [])}


def _heap() -> None:
    """Fill the heap up with objects of a library."""
    library = _module("a_library", "/usr/lib/python3/site-packages/a_library.py")
    library.HEAP = []  # type: ignore[attr-defined]
    library.KEPT = {}  # type: ignore[attr-defined]
    while len(gc.get_objects()) < HEAP_OBJECTS:
        library.HEAP.extend(_Node(number) for number in range(10_000))


def _module(name: str, file: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__file__ = file
    sys.modules[name] = module
    return module


def _leak(case: str, count: int) -> list[tuple[Any, ...]]:
    """Leave something behind, and return what stands on each block of it."""
    import numpy as np
    import torch

    kept: Any = _module("test_model", "/tests/test_model.py")
    if case == "arrays":
        sys.modules["a_library"].__dict__["KEPT"]["a"] = {"b": np.zeros(TENSOR_BYTES // 8)}
        return [(sys.modules["a_library"].__dict__["KEPT"]["a"]["b"],)]
    tensors = [torch.zeros(TENSOR_BYTES // 4) for _ in range(count)] if count < 2_000 else _views(torch, count)
    if case == "list":
        kept.CACHE = {"layer": list(tensors)}
    elif case == "objects":
        kept.CACHE = [_Node(tensor) for tensor in tensors]
    elif case == "hook":
        kept.NET = torch.nn.Sequential(torch.nn.Linear(2, 2))
        kept.NET[0].register_forward_hook(_hook([tensors[0]]))
    elif case == "chain":
        kept.HEAD = _Node(tensors[0])
        for _ in range(10_000):
            kept.HEAD = _Node(kept.HEAD)
    else:
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(tensors[0]))
    return [(tensor,) for tensor in tensors]


def _views(torch: Any, count: int) -> list[Any]:
    return [torch.zeros(1) for _ in range(count)]


def _hook(acts: list[Any]) -> Callable[..., None]:
    return lambda module, arguments, output: acts.append(output)


def _ours(blocks: Sequence[tuple[Any, ...]]) -> bool:
    from pytest_gpuclean.leaks.holders import Target, find_holders
    from pytest_gpuclean.memory.reach import Walk

    targets = [Target(values, TENSOR_BYTES) for values in blocks]

    def reached_from(value: Any) -> Collection[int]:
        walk = Walk()
        walk.measure([value])
        return [index for index, target in enumerate(targets) if any(map(walk.has_reached, target.values))]

    holding = find_holders(targets, ours=[id(blocks), *map(id, blocks)], reached_from=reached_from)
    return not holding.cut and all(holder.kind != "not followed" for holder in holding.holders)


def _objgraph(blocks: Sequence[tuple[Any, ...]]) -> bool:
    import objgraph  # type: ignore[import-untyped]

    ignored = [id(blocks), id(blocks[0])]
    chain = objgraph.find_backref_chain(blocks[0][0], objgraph.is_proper_module, extra_ignore=ignored)
    return chain[0] is sys.modules["test_model"]


def _guppy(blocks: Sequence[tuple[Any, ...]]) -> bool:
    import guppy

    return "test_model" in str(guppy.hpy().iso(blocks[0][0]).sp)


def _measure(who: str, case: str, count: int, rounds: int) -> dict[str, float]:
    if _has("tensorflow"):
        import tensorflow as tf  # noqa: F401
    _heap()
    blocks = _leak(case, count)
    gc.collect()
    search = {"ours": _ours, "objgraph": _objgraph, "guppy": _guppy}[who]
    taken: list[float] = []
    pace = Pace()
    mib = 0.0
    answers = 0
    for _ in range(rounds):
        before = _peak_mib(reset=True)
        begin = time.perf_counter()
        answers += search(blocks)
        taken.append(time.perf_counter() - begin)
        pace.note()
        mib = max(mib, _peak_mib() - before)
    return {"seconds": pace.even(min(taken)), "mib": mib, "answers": answers / rounds}


def _peak_mib(*, reset: bool = False) -> float:
    """Return the most memory that this process has had, since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> int:
    """Measure and print; the exit status says whether every budget is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.holders", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and targets")
    parser.add_argument("--inside", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        who, case, count, rounds = options.inside
        print(json.dumps(_measure(who, case, int(count), int(rounds))))
        return 0
    missed = 0
    for row in run(Extent(quick=options.quick)):
        budget = "" if row.budget is None else f"budget {row.budget:g} {row.unit}{'' if row.is_met else ', MISSED'}"
        print(f"  {row.what:<60} {row.measured:>8.1f} {row.unit:<4} {budget} {row.compared}", flush=True)
        missed += not row.is_met
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
