"""What the tests of the long run are, by their number: most do nothing, some use memory, a few leave something.

Each thousand has one that fails with a tensor in its frame, and one that leaves a thread that ends late; each five
thousand one that leaks, and one that leaves a process: what is told of those takes walks over a heap that grows with
the run.
"""

from __future__ import annotations

OF_A_THOUSAND = {125: "thread", 750: "failure"}
OF_FIVE_THOUSAND = {1250: "process", 3500: "leak"}
ORDINARY = {3: "counted", 5: "cycle", 7: "fixture"}
LEFT_ALONE = {"process", "leak"}
"""What a run without the plugin does not do: nobody would end it there."""


def kind_of(number: int) -> str:
    """Say what a test does."""
    rare = OF_FIVE_THOUSAND.get(number % 5000) or OF_A_THOUSAND.get(number % 1000)
    return rare or ORDINARY.get(number % 10, "nothing")


def planned(tests: int, *, is_bare: bool) -> dict[str, int]:
    """Count the outcomes that the first so many tests have to have."""
    kinds = [kind_of(number) for number in range(tests)]
    failed, leaks = kinds.count("failure"), 0 if is_bare else kinds.count("leak")
    found = {"passed": tests - failed, "failed": failed, "leaks": leaks}
    return {outcome: number for outcome, number in found.items() if number}
