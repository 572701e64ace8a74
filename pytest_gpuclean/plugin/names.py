"""The names of tests as they are without workers, and of the workers that ran them."""

from __future__ import annotations

import pytest


def plain_name(config: pytest.Config, nodeid: str) -> str:
    """Return a test's id less what `--dist=loadgroup` writes behind it: `test_a.py::test_b@group`.

    A list of known or allowed leaks is written in one run and read in another, with workers or without.

    Args:
        config: of the run's controller, or of a worker.
        nodeid: as the test has it in this run.
    """
    option = config.option
    if not (getattr(option, "loadgroup", False) or getattr(option, "dist", "") == "loadgroup"):
        return nodeid
    # As pytest-xdist finds it: an @ among the parameters is none.
    test, at, group = nodeid.rpartition("@")
    return test if at and "]" not in group and "::" not in group else nodeid


def worker_of(report: pytest.TestReport) -> str:
    """Return the worker of pytest-xdist in which a test ran; empty for none. Under `--dist=each` it runs in all."""
    found = getattr(report, "worker_id", None)
    if found is None:  # xdist's own report of a worker that has died
        found = getattr(getattr(getattr(report, "node", None), "gateway", None), "id", "")
    return str(found)
