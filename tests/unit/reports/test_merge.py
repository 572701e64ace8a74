"""Many runs in one report: what is there twice, and what is missing."""

import pytest

from pytest_gpuclean.reports.data import Report, Shard
from pytest_gpuclean.reports.merge import merge
from unit.reports.world import entry, run


def shard(index, total=3, tests=None, **more):
    tests = [f"test_{index}"] if tests is None else tests
    figures = {"id": f"run {index}", "shard": Shard(index=index, total=total, source="--splits"), **more}
    return Report(runs=(run(*map(entry, tests), **figures),))


def merged(*reports, expected=None):
    return merge([(f"{number}.json", report) for number, report in enumerate(reports)], expected)


def test_shards_come_together_the_oldest_first():
    found = merged(shard(2, started_at=2.0), shard(1, started_at=3.0), shard(3, started_at=1.0))
    assert [one.id for one in found.report.runs] == ["run 3", "run 2", "run 1"]
    assert (found.report.notes, found.is_whole) == ((), True)


def test_the_order_of_the_files_does_not_matter():
    shards = [shard(1), shard(2), shard(3)]
    assert merged(*shards) == merged(*shards[::-1])


@pytest.mark.parametrize(
    ("reports", "note"),
    [
        ([shard(1), shard(3)], "1 of 3 shards missing: 2"),
        ([shard(2)], "2 of 3 shards missing: 1, 3"),
        ([shard(1, 30)], f"29 of 30 shards missing: {', '.join(map(str, range(2, 22)))} and 9 more"),
    ],
)
def test_shards_that_are_missing_are_told(reports, note):
    found = merged(*reports)
    assert (found.report.notes, found.is_whole) == ((note,), False)


def test_runs_that_are_missing_are_told_where_their_number_is_said():
    one = Report(runs=(run(),))
    assert merged(one, expected=1).is_whole
    found = merged(one, expected=3)
    assert (found.report.notes, found.is_whole) == (("2 of 3 runs missing",), False)


def test_what_is_missing_is_told_once():
    found = merged(shard(2), expected=3)
    assert (found.report.notes, found.is_whole) == (("2 of 3 shards missing: 1, 3",), False)
    found = merged(shard(1, 2), shard(2, 2), expected=3)  # not the split that somebody counts on
    assert (found.report.notes, found.is_whole) == (("1 of 3 runs missing",), False)


def test_a_run_that_is_there_twice_counts_once():
    found = merged(shard(1, 2), shard(2, 2), shard(1, 2))
    assert len(found.report.runs) == 2
    assert found.report.notes == ("2.json: this run is there already, and counts once",)
    assert found.is_whole


def test_a_shard_that_ran_again_is_told_with_both_of_its_runs():
    again = shard(1, 2, id="again")
    found = merged(shard(1, 2), shard(2, 2), again)
    assert len(found.report.runs) == 3
    assert found.report.notes == ("shard 1 of 2 ran 2 times; each of them is told",)


def test_tests_that_ran_in_two_shards_are_told():
    found = merged(shard(1, 2, ["a", "b", "c"]), shard(2, 2, ["b", "c", "d"]))
    assert found.report.notes == ("2 tests ran in more than one run, such as b",)


def test_attempts_of_a_test_are_one_run():
    assert merged(Report(runs=(run(entry("a", "rerun"), entry("a", attempt=2)),))).report.notes == ()


def test_shards_of_different_splits_are_told():
    found = merged(shard(1, 1 + 1), shard(2, 2, id="b"), shard(1, 3, ["x"], id="c"))
    assert "the shards are of different splits: into 2, 3" in found.report.notes


def test_a_report_that_was_merged_can_be_merged_again():
    first = merged(shard(1), shard(2)).report
    assert merged(first, shard(3)) == merged(shard(1), shard(2), shard(3))


def test_a_shard_with_an_absurd_total_takes_no_time():
    assert not merged(shard(1, 2**62)).is_whole
