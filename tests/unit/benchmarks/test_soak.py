"""What is checked after a long run: each check passes what is right, and fails for what it is there for."""

import dataclasses
import os
import subprocess
import time

import pytest

from benchmarks.soak import checks, plans, system
from benchmarks.soak.checks import Tenth
from benchmarks.soak.kinds import kind_of, planned

MiB = 2**20


def tenths(test_us=(500.0, 500.0), rss_mib=(200, 220), objects=(1_000, 2_000), **counts):
    return [
        Tenth(
            tests=1_000,
            test_us=test_us[at],
            reference_us=counts.get("reference_us", (100.0, 100.0))[at],
            calls=counts.get("calls", (900, 900))[at],
            full_collections=counts.get("full_collections", (20, 21))[at],
            rss_bytes=rss_mib[at] * MiB,
            objects=objects[at],
            descriptors=counts.get("descriptors", (10, 10))[at],
            threads=counts.get("threads", (2, 2))[at],
            children=counts.get("children", (0, 0))[at],
        )
        for at in (0, 1)
    ]


def holds(found):
    return [check.holds for check in found]


BARE = tenths(test_us=(400.0, 400.0))


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        (tenths(), [True, True, True, True]),
        (tenths(calls=(900, 950)), [False, True, True, True]),
        (tenths(full_collections=(20, 40)), [True, False, True, True]),
        (tenths(test_us=(500.0, 1000.0), reference_us=(100.0, 200.0)), [True] * 4),  # the machine got slower
        (tenths(test_us=(500.0, 700.0)), [True, True, False, False]),
        (tenths(test_us=(410.0, 500.0)), [True, True, True, False]),  # little in all, much of its own
    ],
)
def test_the_cost_of_a_test_may_not_grow(ours, expected):
    assert holds(checks.constant_cost(ours, BARE)) == expected


def test_what_grows_without_the_plugin_too_is_not_its_own():
    assert holds(checks.constant_cost(tenths(test_us=(500.0, 700.0)), tenths(test_us=(400.0, 600.0)))) == [True] * 4


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        (tenths(), [True, True, True]),
        (tenths(rss_mib=(200, 300)), [False, False, True]),
        (tenths(rss_mib=(300, 300)), [False, True, True]),
        (tenths(objects=(1_000, 2_600)), [True, True, False]),
    ],
)
def test_memory_may_not_grow_more_than_without_the_plugin(ours, expected):
    assert holds(checks.bounded_memory(ours, BARE)) == expected


@pytest.mark.parametrize("what", ["descriptors", "threads"])
def test_one_more_at_the_end_is_one_too_many(what):
    assert holds(checks.same_count(tenths())) == [True, True, True]
    assert holds(checks.same_count(tenths(**{what: (10, 11)}))).count(False) == 1


def test_one_child_may_be_waited_for_by_the_next_popen():
    assert all(holds(checks.same_count(tenths(children=(0, 1)))))
    assert not all(holds(checks.same_count(tenths(children=(0, 2)))))


def test_outcomes_that_were_not_planned_are_named():
    assert checks.as_planned("x", {"passed": 3, "leaks": 1}, {"passed": 3, "leaks": 1}).holds
    wrong = checks.as_planned("x", {"passed": 3, "leaks": 1}, {"passed": 3, "errors": 1})
    assert not wrong.holds
    assert wrong.figures == "errors: 1, not 0; leaks: 0, not 1"


def test_the_plan_of_the_long_run_counts_each_kind():
    assert planned(10_000, is_bare=False) == {"passed": 9_990, "failed": 10, "leaks": 2}
    assert planned(10_000, is_bare=True) == {"passed": 9_990, "failed": 10}
    kinds = [kind_of(number) for number in range(10_000)]
    assert {kind: kinds.count(kind) for kind in ("process", "leak", "thread")} == {
        "process": 2,
        "leak": 2,
        "thread": 10,
    }


ALL = [("setup", "passed"), ("call", "passed"), ("teardown", "passed")]


@pytest.mark.parametrize(
    ("reports", "outcome"),
    [
        (ALL, "passed"),
        ([("setup", "passed"), ("call", "failed"), ("teardown", "passed")], "failed"),
        ([("setup", "passed"), ("call", "passed"), ("teardown", "failed")], "error"),
        ([("setup", "failed"), ("teardown", "passed")], "error"),
        ([("???", "failed")], "died"),
        ([("setup", "passed"), ("call", "passed"), ("???", "failed")], "died"),
        ([("???", "failed"), ("???", "failed")], "died twice"),
        ([], "never run"),
        ([*ALL, *ALL], "run twice"),
        ([("setup", "passed"), ("call", "passed")], "never ended"),
    ],
)
def test_what_became_of_a_test_is_said_in_a_word(reports, outcome):
    assert checks.outcome_of(reports) == outcome


def test_each_test_has_to_have_the_outcome_that_was_planned():
    reports = [("a", *phase) for phase in ALL] + [("c", *phase) for phase in ALL]
    assert checks.outcomes_of_run({"a": "passed", "c": "passed"}, reports) == []
    wrong = checks.outcomes_of_run({"a": "died", "b": "passed"}, reports)
    assert sorted({line.partition(" was")[0] for line in wrong}) == [
        "a: passed, not died",
        "b: never run, not passed",
        "c",
    ]


def test_what_each_dead_worker_costs_is_compared_with_that_without_the_plugin():
    steady, growing = [10] * 20, list(range(10, 30))
    assert checks.growth_a_death(steady, steady, "descriptors").holds
    assert checks.growth_a_death(growing, growing, "descriptors").holds
    assert not checks.growth_a_death(growing, steady, "descriptors").holds
    assert not checks.growth_a_death([], steady, "descriptors").holds, "nothing was counted"


def test_a_calm_run_may_not_get_slower():
    assert checks.no_slower([2.0, 9.0, 2.1], [2.2, 2.2, 8.0]).holds
    assert not checks.no_slower([2.0, 2.0, 2.1], [2.9, 2.9, 2.9]).holds


def test_what_was_left_is_named():
    assert checks.nothing_left("files", []).line == "ok     files: none"
    assert checks.nothing_left("files", {"b", "a"}).line == "FAILED files: a, b"


def test_a_seed_and_a_number_give_the_same_run():
    assert plans.draw(3, 8) == plans.draw(3, 8)
    assert plans.draw(3, 8) != plans.draw(3, 9)


def test_the_runs_have_every_way_to_die():
    tests = [test for number in range(300) for test in plans.draw(1, number).tests.values()]
    assert {(test.death, test.phase) for test in tests if test.death} == {
        (death, phase) for death in plans.DEATHS for phase in plans.PHASES
    }
    assert {test.companion for test in tests if test.death} == set(plans.COMPANIONS)
    assert {test.does for test in tests if not test.death} == set(plans.ORDINARY)


def test_where_a_worker_dies_tests_are_not_handed_out_by_scope():
    drawn = [plans.draw(1, number) for number in range(300)]
    assert {plan.distribution for plan in drawn if plan.deaths} == set(plans.DISTRIBUTIONS)
    assert {plan.distribution for plan in drawn} == {*plans.DISTRIBUTIONS, *plans.BY_SCOPE}


def test_outcomes_follow_from_what_a_test_does():
    plan = dataclasses.replace(
        plans.calm(4),
        options=("--gpu-processes=fail",),
        tests=dict(zip("abcd", map(plans.TestPlan, ("nothing", "failure", "error", "child")), strict=True)),
    )
    assert plan.outcomes() == {"a": "passed", "b": "failed", "c": "error", "d": "error"}
    assert dataclasses.replace(plan, options=()).outcomes()["d"] == "passed"


def sleeping(*more, **options):
    """A child that sleeps; what `Popen` gives may for a moment have no command line and no environment yet."""
    child = subprocess.Popen(["sleep", "100", *more], **options)
    until = time.monotonic() + 10
    while not (system.PROC / f"{child.pid}/cmdline").read_bytes() and time.monotonic() < until:
        time.sleep(0.001)
    return child


@pytest.mark.skipif(not system.PROC.joinpath("self/environ").exists(), reason="processes are read from /proc")
def test_a_process_that_bears_the_mark_is_found_told_and_ended():
    mark = f"mark{os.getpid()}"
    child = sleeping(env={**os.environ, "SOAK_MARK": mark})
    told = system.left_bearing(mark, within_seconds=0.2)
    assert told == [f"pid {child.pid} (sleep 100)"]
    assert child.wait() == -9
    assert system.left_bearing(mark, within_seconds=0.0) == []


@pytest.mark.skipif(not system.PROC.joinpath("self/environ").exists(), reason="processes are read from /proc")
def test_a_daemon_without_an_environment_is_found_by_its_command_line():
    mark = f"mark{os.getpid()}"
    child = sleeping(system.as_number(mark), env={})
    assert [line.partition(" (")[0] for line in system.left_bearing(mark, within_seconds=0.0)] == [f"pid {child.pid}"]
    assert child.wait() == -9


def test_files_and_empty_folders_are_listed(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "c").write_text("")
    assert system.files_below(tmp_path) == {os.path.join("a", "b"), "c"}
