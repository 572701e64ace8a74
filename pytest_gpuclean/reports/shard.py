"""Which part of a suite a run is, by what splits it: options of pytest plugins, or the variables of a CI."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_gpuclean.reports.data import Shard

_OPTIONS = (
    # of pytest-split, from 1 on; of pytest-shard, from 0 on
    ("group", "splits", 1),
    ("shard_id", "num_shards", 0),
)
_VARIABLES = (
    # our own first; GitLab, CircleCI, Buildkite, Semaphore
    ("GPUCLEAN_SHARD", "GPUCLEAN_SHARDS", 1),
    ("CI_NODE_INDEX", "CI_NODE_TOTAL", 1),
    ("CIRCLE_NODE_INDEX", "CIRCLE_NODE_TOTAL", 0),
    ("BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT", 0),
    ("SEMAPHORE_JOB_INDEX", "SEMAPHORE_JOB_COUNT", 1),
)


def shard_of(options: Mapping[str, object], environ: Mapping[str, str]) -> Shard | None:
    """Say which shard this run is; None where nothing says that it is one.

    Args:
        options: of pytest, by their names.
        environ: the environment.
    """
    for index, total, first in _OPTIONS:
        found = _shard(options.get(index), options.get(total), first, f"--{total.replace('_', '-')}")
        if found is not None:
            return found
    for index, total, first in _VARIABLES:
        found = _shard(environ.get(index), environ.get(total), first, total)
        if found is not None:
            return found
    return None


def _shard(index: object, total: object, first: int, source: str) -> Shard | None:
    if not (_is_count(index) and _is_count(total)):
        return None
    number, count = int(str(index)) - first + 1, int(str(total))
    # A suite in one piece is none that is split.
    return Shard(index=number, total=count, source=source) if 1 <= number <= count and count > 1 else None


def _is_count(value: object) -> bool:
    return value is not None and str(value).isascii() and str(value).isdigit() and len(str(value)) < 7
