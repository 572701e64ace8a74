"""What was left behind, in one line."""

import pytest

from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.reports.processes import describe_left
from pytest_gpuclean.reports.terminal import left_texts


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ended_by": "SIGINT", "seconds": 0.012}, "sleep (pid 12): ended by SIGINT after 12 ms"),
        ({"ended_by": "itself"}, "sleep (pid 12): ended by itself"),
        ({"ended_by": "shut down", "seconds": 2}, "sleep (pid 12): shut down with its pool after 2.00 s"),
        ({}, "sleep (pid 12): is still alive: no reason is known"),
        ({"reason": "it is a service", "is_spared": True}, "sleep (pid 12): goes on: it is a service"),
        (
            {"ended_by": "SIGKILL", "ports": (1, 2), "gpu_bytes": 2**30, "reason": "removed x"},
            "sleep (pid 12), ports 1, 2, 1.0 GiB of GPU memory: ended by SIGKILL; removed x",
        ),
    ],
)
def test_one_line(values, said):
    assert describe_left(LeftProcess(pid=12, name="sleep", command="sleep 100", **values)) == said


def left(**values):
    return LeftProcess(**{"pid": 12, "name": "sleep", "command": "sleep 100", "started_by": "test_a", **values})


def test_what_a_fixture_left_is_told_apart_from_what_the_test_left():
    own = left(ended_by="SIGINT")
    fixtures = left(pid=13, ended_by="SIGKILL", started_by="fixture 'server' (module scope)")
    first, second = left_texts("test_a", [own, own, fixtures])
    assert first.startswith("gpuclean: left 2 processes running\n  sleep (pid 12): ended by SIGINT")
    assert second.startswith("gpuclean: fixture 'server' (module scope) left 1 process running\n  sleep (pid 13)")


def test_what_cannot_be_stopped_is_said_so():
    (text,) = left_texts("test_a", [left(reason="it is in uninterruptible sleep (D)")])
    assert text.splitlines()[:2] == [
        "gpuclean: 1 process cannot be stopped",
        "  sleep (pid 12): is still alive: it is in uninterruptible sleep (D)",
    ]


@pytest.mark.parametrize(
    ("values", "unkillable"),
    [({}, True), ({"ended_by": "SIGKILL"}, False), ({"is_spared": True}, False)],
)
def test_only_what_was_tried_in_vain_is_unkillable(values, unkillable):
    assert left(**values).is_unkillable is unkillable
