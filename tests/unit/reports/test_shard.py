"""Which part of a suite a run is."""

import pytest

from pytest_gpuclean.reports.data import Shard
from pytest_gpuclean.reports.shard import shard_of


@pytest.mark.parametrize(
    ("options", "environ", "index", "total"),
    [
        ({"group": 2, "splits": 3}, {}, 2, 3),
        ({"shard_id": 0, "num_shards": 4}, {}, 1, 4),
        ({}, {"CI_NODE_INDEX": "3", "CI_NODE_TOTAL": "8"}, 3, 8),
        ({}, {"CIRCLE_NODE_INDEX": "0", "CIRCLE_NODE_TOTAL": "2"}, 1, 2),
        ({}, {"BUILDKITE_PARALLEL_JOB": "1", "BUILDKITE_PARALLEL_JOB_COUNT": "2"}, 2, 2),
        ({}, {"GPUCLEAN_SHARD": "1", "GPUCLEAN_SHARDS": "2", "CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "2"}, 1, 2),
        ({"group": 2, "splits": 3}, {"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "2"}, 2, 3),
    ],
)
def test_a_shard_is_told_by_what_splits_the_suite(options, environ, index, total):
    shard = shard_of(options, environ)
    assert (shard.index, shard.total) == (index, total)


@pytest.mark.parametrize(
    ("options", "environ"),
    [
        ({}, {}),
        ({"group": None, "splits": None}, {}),
        ({"shard_id": 0, "num_shards": 1}, {}),
        ({}, {"CI_NODE_INDEX": "9", "CI_NODE_TOTAL": "8"}),
        ({}, {"CI_NODE_INDEX": "0", "CI_NODE_TOTAL": "8"}),
        ({}, {"CI_NODE_INDEX": "one", "CI_NODE_TOTAL": "8"}),
        ({}, {"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "9" * 5000}),
        ({"group": "gpu"}, {}),
    ],
)
def test_what_says_nothing_sensible_is_no_shard(options, environ):
    assert shard_of(options, environ) is None


def test_what_said_so_is_told():
    assert shard_of({"group": 1, "splits": 2}, {}) == Shard(index=1, total=2, source="--splits")
