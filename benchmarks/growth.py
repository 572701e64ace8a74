"""Whether a test still costs the same when a run, its heap, or the number of processes on the machine gets large."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.crowd import crowd
from benchmarks.measure import (
    PLUGIN,
    Extent,
    Figures,
    Point,
    Row,
    Variant,
    above_bare,
    rounds_of,
    sessions,
    spread_us,
)

RECORDS_BUDGET_MIB = 50.0
MOST_GROWTH = 1.5
"""Of the cost of a test, from the shortest run to the longest."""
BODIES = {"empty": "use no memory", "counted": "take 4 MiB and free it"}
QUICK = (*PLUGIN, "--gpu-clean=quick")
FEW, MANY = 6, 500
LEAST_US = 1.0
"""What a multiple is taken of at least: noise may be less than nothing."""


def run(extent: Extent) -> Iterator[Row]:
    """Run ever more tests, on ever larger heaps, among ever more processes."""
    for body in ("empty",) if extent.quick else BODIES:
        yield from _tests(body, extent)
    yield from _heaps(extent)
    yield from _crowds(extent)


def _tests(body: str, extent: Extent) -> Iterator[Row]:
    counts: tuple[int, ...] = (1_000, 3_000) if extent.quick else (1_000, 10_000)
    if extent.long:
        counts = (1_000, 3_000, 10_000, 30_000, 100_000)
    group = f"a run of tests that {BODIES[body]}; 2 simulated devices, quick"
    of_shortest = 0.0
    for tests in counts:
        figures = _alternately(body, tests, rounds=2 if tests <= 10_000 else 1)
        # The first run of each process: later ones find memory that an earlier one has left.
        records = (figures["ours"][0]["rss_bytes"] - figures["bare"][0]["rss_bytes"]) / 2**20
        a_test = 1e6 * above_bare(figures, "ours", clock="test_cpu_seconds")
        of_shortest = of_shortest or max(LEAST_US, a_test)
        is_longest = tests >= 100_000
        yield Row(
            group=group,
            what=f"{tests:,} tests: a test",
            measured=a_test,
            unit="µs",
            spread=spread_us(figures, "ours", clock="test_cpu_seconds"),
            compared=f"{a_test / of_shortest:.2f} of a test of {counts[0]:,}",
            point=Point(panel="tests", line=f"tests that {BODIES[body]}", x=tests),
            rounds=rounds_of(figures, "ours", "bare", clock="test_cpu_seconds", where=f"{body}, {tests} tests"),
        )
        yield Row(
            group=group,
            what=f"{tests:,} tests: memory of the process above a run without",
            measured=records,
            unit="MiB",
            budget=RECORDS_BUDGET_MIB,
            promise="records" if is_longest else "",
            point=Point(panel="records", line=f"tests that {BODIES[body]}", x=tests),
        )
        if is_longest:
            yield Row(
                group=group,
                what=f"a test of {tests:,}, as a multiple of one of {counts[0]:,}",
                measured=a_test / of_shortest,
                unit="",
                budget=MOST_GROWTH,
                promise="constant",
            )


def _alternately(body: str, tests: int, rounds: int) -> Figures:
    """Run with and without the plugin in turns, each time in a process of its own: what one keeps, the next finds."""
    figures: Figures = {"bare": [], "ours": []}
    for _ in range(rounds):
        for name, arguments in (("bare", ()), ("ours", QUICK)):
            found = sessions({name: Variant(tests, arguments)}, body=body, rounds=1, devices=2, parametrized=True)
            figures[name] += found[name]
    return figures


def _heaps(extent: Extent) -> Iterator[Row]:
    sizes = (10_000, 1_000_000) if extent.quick else (10_000, 30_000, 100_000, 300_000, 1_000_000)
    variants = {
        "bare": Variant(MANY),
        "ours": Variant(MANY, QUICK),
        "bare few": Variant(FEW),
        "usual": Variant(FEW, by_hand="usual"),
    }
    for objects in sizes:
        figures = sessions(variants, body="empty", rounds=2 if extent.quick else 3, devices=2, heap_objects=objects)
        usual = 1e6 * above_bare(figures, "usual", "bare few") / FEW
        yield from _pair(
            figures,
            group="tests that use no memory on a large heap; 2 simulated devices, quick",
            what=f"{objects:,} objects more than pytest's and torch's own",
            panel="heap",
            x=objects,
            other=("usual fixture", "usual", usual),
        )


def _crowds(extent: Extent) -> Iterator[Row]:
    sizes = (1_000,) if extent.quick else (100, 300, 1_000, 3_000)
    variants = {
        "bare": Variant(MANY),
        "ours": Variant(MANY, QUICK),
        "bare few": Variant(FEW),
        "psutil": Variant(FEW, by_hand="psutil"),
    }
    for processes in sizes:
        with crowd(processes):
            figures = sessions(variants, body="empty", rounds=2, devices=0)
        by_hand = 1e6 * above_bare(figures, "psutil", "bare few", "test_wall_seconds")
        yield from _pair(
            figures,
            group="tests that use no memory among many processes; host memory, quick",
            what=f"{processes:,} others on the machine",
            panel="processes",
            x=processes,
            other=("psutil's walk over all processes", "psutil", by_hand),
        )


def _pair(
    figures: Figures, *, group: str, what: str, panel: str, x: float, other: tuple[str, str, float]
) -> Iterator[Row]:
    """Give a test of ours, and one of what it is compared to."""
    name, variant, other_us = other
    ours_us = 1e6 * above_bare(figures, "ours", clock="test_cpu_seconds")
    yield Row(
        group=group,
        what=f"{what}: the plugin",
        measured=ours_us,
        unit="µs",
        spread=spread_us(figures, "ours", clock="test_cpu_seconds"),
        compared=f"1/{other_us / max(ours_us, 0.01):.0f} of {name}",
        point=Point(panel=panel, line="the plugin", x=x),
        rounds=rounds_of(figures, *figures, where=what),
    )
    yield Row(
        group=group,
        what=f"{what}: {name}",
        measured=other_us,
        unit="µs",
        spread=spread_us(figures, variant, "bare few", per=FEW),
        point=Point(panel=panel, line=name, x=x),
    )
