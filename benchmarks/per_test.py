"""What a test costs while the plugin is on, beside the fixture that suites write by hand."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from benchmarks.measure import PLUGIN, Extent, Figures, Point, Row, Variant, above_bare, rounds_of, sessions, spread_us

PLACES = {1: "1 simulated device", 2: "2 simulated devices", 0: "host memory"}
LEVELS = {
    "gate alone": (*PLUGIN, "--gpu-leak=fail"),
    "quick": (*PLUGIN, "--gpu-clean=quick"),
    "comprehensive": (*PLUGIN, "--gpu-clean=comprehensive"),
}
OTHERS = {"usual": "usual fixture", "psutil": "psutil's walk over all processes", "memray": "pytest-memray's limit"}
"""What is written by hand or taken instead, by its name in `session.BY_HAND`; memray sees host memory alone."""
MANY = 220
"""Tests of a session whose median counts: short sessions in many rounds meet all moods of the machine."""
IDLE_BUDGET_US = 50.0
COUNTED_BUDGET_US = 100.0
COUNTED_SHARE = 1 / 100
"""Of the usual fixture, where a comprehensive cleanup collects, waits for the devices and empties the caches."""
IDLE_SHARE = 1 / 500
CYCLE_SHARE = 1 / 5


def run(extent: Extent) -> Iterator[Row]:
    """Measure tests that use no memory, that free what they take, and that leave garbage cycles."""
    quick = extent.quick
    for devices in PLACES:
        yield from _idle(devices, quick)
    for body in ("counted", "cycle"):
        for devices in (2, 0):
            yield from _using(body, devices, quick)


def _idle(devices: int, quick: bool) -> list[Row]:
    """Take the median of many tests for a test; what a session of few costs is mostly the run's."""
    rounds = 3 if quick else 5
    few, others = 20, _others(devices)
    variants = _variants(few)
    in_one = sessions({**variants, **_by_hand(others, few)}, body="empty", rounds=rounds, devices=devices)
    spread = sessions(variants, body="empty", rounds=rounds, devices=devices, modules=few)
    figures = sessions(_variants(MANY), body="empty", rounds=9 if quick else 25, devices=devices)

    usual = 1e6 * above_bare(in_one, "usual") / few
    budget = min(IDLE_BUDGET_US * max(1, devices), usual * IDLE_SHARE)
    group = f"tests that use no memory; {PLACES[devices]}"
    rows = _rows_of_others(in_one, others, group, "cpu_seconds", few)
    for name in LEVELS:
        of_few = above_bare(in_one, name)
        a_test = 1e6 * above_bare(figures, name, clock="test_cpu_seconds")
        of_modules = above_bare(spread, name)
        compared = f"1/{usual / max(a_test, 0.01):.0f}"
        rows += [
            Row(
                group=group,
                what=f"{name}, a test",
                measured=a_test,
                unit="µs",
                budget=budget,
                compared=compared,
                promise="idle",
                spread=spread_us(figures, name, clock="test_cpu_seconds"),
                point=Point(panel="a test", line=name, x=_place(group)),
                rounds=rounds_of(figures, name, "bare", clock="test_cpu_seconds", where=group),
            ),
            Row(
                group=group,
                what=f"{name}, the end of a module",
                measured=1e3 * (of_modules - of_few) / (few - 1),
                unit="ms",
            ),
            Row(group=group, what=f"{name}, once a run", measured=1e3 * of_few, unit="ms"),
        ]
    return rows


def _using(body: str, devices: int, quick: bool) -> list[Row]:
    few, others = 10 if quick else 20, _others(devices)
    beside = {"bare": Variant(few), **_by_hand(others, few)}
    by_hand = sessions(beside, body=body, rounds=3 if quick else 5, devices=devices)
    figures = sessions(_variants(MANY), body=body, rounds=9 if quick else 25, devices=devices)

    usual = 1e6 * above_bare(by_hand, "usual", clock="test_wall_seconds")
    does = {"counted": "take 4 MiB and free it", "cycle": "leave 4 MiB in a garbage cycle"}[body]
    group = f"tests that {does}; {PLACES[devices]}"
    rows = _rows_of_others(by_hand, others, group, "test_wall_seconds", 1)
    for name in LEVELS:
        measured = 1e6 * above_bare(figures, name, clock="test_wall_seconds")
        rows.append(
            Row(
                group=group,
                what=f"{name}, a test",
                measured=measured,
                unit="µs",
                budget=_counted_budget(name, usual) if body == "counted" else usual * CYCLE_SHARE,
                compared=f"1/{usual / max(measured, 0.01):.1f}",
                promise="counted" if body == "counted" else "garbage",
                spread=spread_us(figures, name, clock="test_wall_seconds"),
                point=Point(panel="a test", line=name, x=_place(group)),
                rounds=rounds_of(figures, name, "bare", clock="test_wall_seconds", where=group),
            )
        )
    return rows


def _counted_budget(level: str, usual: float) -> float:
    return max(COUNTED_BUDGET_US, usual * COUNTED_SHARE if level == "comprehensive" else 0.0)


def _others(devices: int) -> list[str]:
    """List what it is compared to: memray, where it is installed, and where it sees the memory."""
    has_memray = devices == 0 and importlib.util.find_spec("pytest_memray") is not None
    return [name for name in OTHERS if name != "memray" or has_memray]


def _variants(tests: int) -> dict[str, Variant]:
    return {"bare": Variant(tests), **{name: Variant(tests, arguments) for name, arguments in LEVELS.items()}}


def _by_hand(others: list[str], tests: int) -> dict[str, Variant]:
    arguments = {"memray": ("-p", "pytest_memray.plugin", "--memray", "--most-allocations=0")}
    return {name: Variant(tests, arguments.get(name, ()), by_hand=name) for name in others}


def _rows_of_others(figures: Figures, others: list[str], group: str, clock: str, per: int) -> list[Row]:
    return [
        Row(
            group=group,
            what=f"{OTHERS[name]}, a test",
            measured=1e6 * above_bare(figures, name, clock=clock) / per,
            unit="µs",
            spread=spread_us(figures, name, clock=clock, per=per),
            point=Point(panel="a test", line=OTHERS[name], x=_place(group)),
            rounds=rounds_of(figures, name, "bare", clock=clock, where=f"{group}; few"),
        )
        for name in others
    ]


def _place(group: str) -> float:
    """Give the place of a group in the plot, from left to right."""
    return float(GROUPS.index(group))


GROUPS = tuple(
    f"tests that {does}; {PLACES[devices]}"
    for does, places in (
        ("use no memory", (1, 2, 0)),
        ("take 4 MiB and free it", (2, 0)),
        ("leave 4 MiB in a garbage cycle", (2, 0)),
    )
    for devices in places
)
