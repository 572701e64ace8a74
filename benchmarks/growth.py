"""Whether a test still costs the same, and what the plugin's records weigh, when a run gets long."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure import PLUGIN, Row, Variant, microseconds_a_test, sessions

RECORDS_BUDGET_MIB = 50.0
BODIES = {"empty": "use no memory", "counted": "take 4 MiB and free it"}


def run(*, quick: bool) -> Iterator[Row]:
    """Run ever more tests with the plugin and without, each in a process of its own."""
    arguments = (*PLUGIN, "--gpu-clean=quick")
    for body, does in BODIES.items():
        for tests in (1_000, 10_000) if quick else (1_000, 10_000, 100_000):
            rounds = 3 if tests <= 1_000 else 1
            bare = sessions({"bare": Variant(tests)}, body=body, rounds=rounds, devices=2, parametrized=True)
            ours = sessions({"ours": Variant(tests, arguments)}, body=body, rounds=rounds, devices=2, parametrized=True)
            figures = {**bare, **ours}
            # The first run of each process: later ones find memory that an earlier one has left.
            records = (ours["ours"][0]["rss_bytes"] - bare["bare"][0]["rss_bytes"]) / 2**20
            group = f"a run of tests that {does}; 2 simulated devices, quick"
            yield Row(
                group=group, what=f"{tests:,} tests: a test", measured=microseconds_a_test(figures, "ours"), unit="µs"
            )
            yield Row(
                group=group,
                what=f"{tests:,} tests: memory of the process above a run without",
                measured=records,
                unit="MiB",
                budget=RECORDS_BUDGET_MIB,
            )
