"""What a test costs while the plugin is on, beside the fixture that suites write by hand."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import PLUGIN, Row, Variant, above_bare, sessions

PLACES = {1: "1 simulated device", 2: "2 simulated devices", 0: "host memory"}
LEVELS = {
    "gate alone": (*PLUGIN, "--gpu-leak=fail"),
    "quick": (*PLUGIN, "--gpu-clean=quick"),
    "comprehensive": (*PLUGIN, "--gpu-clean=comprehensive"),
}
IDLE_BUDGET_US = 50.0
COUNTED_BUDGET_US = 100.0
IDLE_SHARE = 1 / 500
CYCLE_SHARE = 1 / 5


def run(*, quick: bool) -> Iterator[Row]:
    """Measure tests that use no memory, that free what they take, and that leave garbage cycles."""
    for devices in PLACES:
        yield from _idle(devices, quick)
    for body in ("counted", "cycle"):
        for devices in (2, 0):
            yield from _using(body, devices, quick)


def _idle(devices: int, quick: bool) -> list[Row]:
    """Take the median of many tests for a test; what a session of few costs is mostly the run's."""
    rounds = 3 if quick else 6
    few, many = 20, 2020
    variants = {}
    for tests in (few, many):
        variants[f"bare {tests}"] = Variant(tests)
        variants |= {f"{name} {tests}": Variant(tests, arguments) for name, arguments in LEVELS.items()}
    figures = sessions(
        {**variants, f"usual {few}": Variant(few, usual=True)}, body="empty", rounds=rounds, devices=devices
    )
    spread = sessions(
        {n: v for n, v in variants.items() if v.tests == few}, body="empty", rounds=rounds, devices=devices, modules=few
    )

    usual = 1e6 * above_bare(figures, f"usual {few}", f"bare {few}") / few
    budget = min(IDLE_BUDGET_US * max(1, devices), usual * IDLE_SHARE)
    group = f"tests that use no memory; {PLACES[devices]}"
    rows = [Row(group=group, what="usual fixture, a test", measured=usual, unit="µs")]
    for name in LEVELS:
        of_few = above_bare(figures, f"{name} {few}", f"bare {few}")
        a_test = 1e6 * above_bare(figures, f"{name} {many}", f"bare {many}", "test_cpu_seconds")
        of_modules = above_bare(spread, f"{name} {few}", f"bare {few}")
        compared = f"1/{usual / max(a_test, 0.01):.0f}"
        rows += [
            Row(group=group, what=f"{name}, a test", measured=a_test, unit="µs", budget=budget, compared=compared),
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
    rounds = 2 if quick else 5
    tests, few = 320, 20
    variants = {"bare": Variant(tests)}
    variants |= {name: Variant(tests, arguments) for name, arguments in LEVELS.items()}
    variants |= {"bare few": Variant(few), "usual": Variant(few, usual=True)}
    figures = sessions(variants, body=body, rounds=rounds, devices=devices)

    usual = 1e6 * above_bare(figures, "usual", "bare few", "test_wall_seconds")
    does = {"counted": "take 4 MiB and free it", "cycle": "leave 4 MiB in a garbage cycle"}[body]
    group = f"tests that {does}; {PLACES[devices]}"
    rows = [Row(group=group, what="usual fixture, a test", measured=usual, unit="µs")]
    for name in LEVELS:
        measured = 1e6 * above_bare(figures, name, "bare", "test_wall_seconds")
        rows.append(
            Row(
                group=group,
                what=f"{name}, a test",
                measured=measured,
                unit="µs",
                budget=COUNTED_BUDGET_US if body == "counted" else usual * CYCLE_SHARE,
                compared=f"1/{usual / max(measured, 0.01):.1f}",
            )
        )
    return rows
