"""What is checked, as pure functions over what was counted: each gives one line and whether it holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

MOST_GROWTH = 1.25
"""Of the cost of a test, from the first tenth to the last, in units of a loop that always does the same."""
MOST_MORE_CALLS = 1.02
MOST_MORE_COLLECTIONS = 1.5
COLLECTIONS_SLACK = 5
MOST_OWN_GROWTH = 2.0
"""Of the plugin's own share, which is a small difference between two long runs."""
OWN_SLACK_US = 20.0
RECORDS_MIB = 50.0
MOST_OBJECTS_A_TEST = 0.5
MOST_SLOWER = 1.3
LEAST_DEATHS = 4
MOST_A_DEATH = 0.1


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to hold."""

    what: str
    holds: bool
    figures: str

    @property
    def line(self) -> str:
        """What is printed of it."""
        return f"{'ok    ' if self.holds else 'FAILED'} {self.what}: {self.figures}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenth:
    """What was counted over a tenth of a long run, or at its end."""

    tests: int
    test_us: float
    """The median of the tests that do nothing, in CPU time."""
    reference_us: float
    """The same loop, timed among the tests: how quick the machine was just then."""
    calls: float
    """How many functions a test calls that does nothing, the median of a few: what no load of the machine changes."""
    full_collections: int
    """How often the garbage of all generations was collected."""
    rss_bytes: int
    objects: int
    descriptors: int
    threads: int
    children: int

    @property
    def relative(self) -> float:
        """The cost of a test in loops."""
        return self.test_us / self.reference_us


def constant_cost(ours: Sequence[Tenth], bare: Sequence[Tenth]) -> list[Check]:
    """Compare a test of the first tenth with one of the last.

    Args:
        ours: of the run with the plugin.
        bare: of the same run without it.
    """
    growth, of_bare = ours[-1].relative / ours[0].relative, bare[-1].relative / bare[0].relative
    loop_us = sorted(tenth.reference_us for tenth in (*ours, *bare))[len(ours)]
    first, last = ((ours[at].relative - bare[at].relative) * loop_us for at in (0, -1))
    calls, collections = ours[-1].calls / ours[0].calls, (ours[0].full_collections, ours[-1].full_collections)
    return [
        Check(
            "serial: functions that a test calls, last tenth to first",
            calls <= MOST_MORE_CALLS * max(1.0, bare[-1].calls / bare[0].calls),
            f"{ours[0].calls:.0f} and {ours[-1].calls:.0f} ({bare[0].calls:.0f} and {bare[-1].calls:.0f} without the "
            f"plugin; at most {MOST_MORE_CALLS} times as many)",
        ),
        Check(
            "serial: full collections, first tenth and last",
            collections[1] <= MOST_MORE_COLLECTIONS * collections[0] + COLLECTIONS_SLACK,
            f"{collections[0]} and {collections[1]} (at most {MOST_MORE_COLLECTIONS} times as many and "
            f"{COLLECTIONS_SLACK})",
        ),
        Check(
            "serial: cost of a test, last tenth to first",
            growth <= max(MOST_GROWTH, MOST_GROWTH * of_bare),
            f"{growth:.2f} ({of_bare:.2f} without the plugin; at most {MOST_GROWTH})",
        ),
        Check(
            "serial: the plugin's share of a test",
            last <= MOST_OWN_GROWTH * max(0.0, first) + OWN_SLACK_US,
            f"{first:.0f} µs in the first tenth, {last:.0f} µs in the last "
            f"(at most {MOST_OWN_GROWTH:g} times as much and {OWN_SLACK_US:.0f} µs)",
        ),
    ]


def bounded_memory(ours: Sequence[Tenth], bare: Sequence[Tenth]) -> list[Check]:
    """Compare what a long run keeps with what it keeps without the plugin."""
    tests = sum(tenth.tests for tenth in ours[1:])
    mib, bare_mib = ((run[-1].rss_bytes - run[0].rss_bytes) / 2**20 for run in (ours, bare))
    above = (ours[-1].rss_bytes - bare[-1].rss_bytes) / 2**20
    objects = ((ours[-1].objects - ours[0].objects) - (bare[-1].objects - bare[0].objects)) / tests
    return [
        Check(
            "serial: memory at the end, above the run without the plugin",
            above <= RECORDS_MIB,
            f"{above:.1f} MiB (at most {RECORDS_MIB:.0f} MiB)",
        ),
        Check(
            "serial: growth of memory from the first tenth to the last, above that without",
            mib - bare_mib <= RECORDS_MIB,
            f"{mib - bare_mib:.1f} MiB ({mib:.1f} less {bare_mib:.1f}; at most {RECORDS_MIB:.0f} MiB)",
        ),
        Check(
            "serial: objects that a test leaves for good, above those without",
            objects <= MOST_OBJECTS_A_TEST,
            f"{objects:.3f} a test (at most {MOST_OBJECTS_A_TEST})",
        ),
    ]


def same_count(ours: Sequence[Tenth]) -> list[Check]:
    """Compare descriptors, threads and children at the end of the first tenth and of the last."""
    first, last = ours[0], ours[-1]
    pairs = {
        "descriptors": (first.descriptors, last.descriptors, 0),
        "threads": (first.threads, last.threads, 0),
        # A Popen that nobody waits for asks for the end of its process when the next one is made.
        "child processes": (first.children, last.children, 1),
    }
    return [
        Check(f"serial: {what} in the first tenth and in the last", end <= begin + slack, f"{begin} and {end}")
        for what, (begin, end, slack) in pairs.items()
    ]


def as_planned(whose: str, planned: Mapping[str, int], counted: Mapping[str, int]) -> Check:
    """Compare the outcomes of tests with those that were planned."""
    wrong = {
        outcome: f"{counted.get(outcome, 0):,}, not {planned.get(outcome, 0):,}"
        for outcome in sorted({*planned, *counted})
        if planned.get(outcome, 0) != counted.get(outcome, 0)
    }
    told = wrong or {outcome: f"{number:,}" for outcome, number in planned.items()}
    return Check(
        f"{whose}: outcomes as planned", not wrong, "; ".join(f"{name}: {text}" for name, text in told.items())
    )


def nothing_left(what: str, left: Collection[str], over: str = "") -> Check:
    """Say that nothing of a kind was left, or what was."""
    shown = sorted(left)[:5]
    more = f" and {len(left) - len(shown)} more" if len(left) > len(shown) else ""
    return Check(what, not left, f"{', '.join(shown)}{more}" if left else f"none{over}")


def outcomes_of_run(planned: Mapping[str, str], reports: Sequence[tuple[str, str, str]]) -> list[str]:
    """Compare the reports of a run whose workers die with what was planned; return what is wrong.

    Args:
        planned: for each test `passed`, `failed`, `error` or `died`.
        reports: test, phase and outcome of each report; a test whose worker died has one of the phase `???`.
    """
    by_test: dict[str, list[tuple[str, str]]] = {test: [] for test in planned}
    wrong = []
    for test, phase, outcome in reports:
        if test not in by_test:
            wrong.append(f"{test} was never planned")
        else:
            by_test[test].append((phase, outcome))
    for test, found in by_test.items():
        has = outcome_of(found)
        if has != planned[test]:
            wrong.append(f"{test}: {has}, not {planned[test]}")
    return wrong


def outcome_of(reports: Sequence[tuple[str, str]]) -> str:
    """Say in a word what became of a test."""
    phases = [phase for phase, _ in reports]
    if phases.count("???"):
        return "died" if phases.count("???") == 1 else "died twice"
    if not phases:
        return "never run"
    if len(phases) != len(set(phases)):
        return "run twice"
    failed = {phase for phase, outcome in reports if outcome == "failed"}
    if "teardown" not in phases:
        return "never ended"
    return "failed" if "call" in failed else "error" if failed else "passed"


def growth_a_death(ours: Sequence[int], bare: Sequence[int], what: str) -> Check:
    """Compare what each dead worker costs the process that hands the tests out.

    Args:
        ours: the count after each death.
        bare: the same without the plugin.
        what: is counted.
    """
    name = f"workers: {what} of the controller for each worker that died"
    if min(len(ours), len(bare)) < LEAST_DEATHS:
        return Check(name, False, f"{len(ours)} deaths, and {len(bare)} without the plugin: too few to compare")
    slope, of_bare = _slope(ours), _slope(bare)
    return Check(
        name,
        slope <= of_bare + MOST_A_DEATH,
        f"{slope:.2f} ({of_bare:.2f} without the plugin; at most {MOST_A_DEATH} more), {len(ours)} deaths",
    )


def _slope(counts: Sequence[int]) -> float:
    """Give the growth a step: from the middle of the first quarter's to that of the last."""
    quarter = max(1, len(counts) // 4)
    first, last = sorted(counts[:quarter])[quarter // 2], sorted(counts[-quarter:])[quarter // 2]
    return (last - first) / max(1, len(counts) - quarter)


def no_slower(begin: Sequence[float], end: Sequence[float]) -> Check:
    """Compare runs before everything with runs after it, each as a ratio to one without the plugin."""
    before, after = sorted(begin)[len(begin) // 2], sorted(end)[len(end) // 2]
    return Check(
        "workers: a calm run, after the others to before",
        after <= MOST_SLOWER * before,
        f"{after / before:.2f} (at most {MOST_SLOWER}; {before:.2f} and {after:.2f} of a run without the plugin)",
    )
