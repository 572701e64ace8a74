"""What was left behind, in one line."""

import pytest

from pytest_gpuclean.model import LeftProcess
from pytest_gpuclean.reports.processes import describe_left


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
