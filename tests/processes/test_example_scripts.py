"""The loops of the two old cleaners, retyped in `examples/experiment_loop.py`, run as they stand there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from processes.alone import alone
from processes.starting import STANDINS, end, is_alive, orphan_that_executes, standin

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are proved by /proc"),
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the example trains with torch"),
]

EXAMPLE = Path(__file__).parents[2] / "examples" / "experiment_loop.py"
WAITS = "import signal, sys\nsignal.alarm(100)\nwhile True: signal.pause()\n"


def run_example(*arguments):
    """Run it as a user does; give what it said, and the processes that it says it has stopped, by what they are."""
    done = subprocess.run(
        [sys.executable, os.fspath(EXAMPLE), *arguments], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)  # told where a test fails
    stopped = re.findall(r"(?:ok: |; )([^;\n]+?) \(pid (\d+)\)[^;\n]*?: ended by SIG", done.stdout)
    return done.stdout, [(name, int(pid)) for name, pid in stopped]


@alone
def test_each_run_is_cleaned_up_after_and_so_is_the_training():
    Path("tensorboard").write_text(WAITS)
    bag = os.fspath(EXAMPLE.with_name("play_bag.py"))
    stranger = orphan_that_executes(sys.executable, bag, environ={"PATH": os.environ["PATH"]})
    said, stopped = run_example("--runs", "4", "--board", f"{sys.executable} tensorboard")
    assert [name for name, _ in stopped] == ["python play_bag.py"] * 4 + ["TensorBoard"]
    assert not any(is_alive(pid) for _, pid in stopped)
    assert is_alive(stranger), "the same script, started by somebody else"
    end(stranger)
    titles = [line for line in said.splitlines() if line.startswith(("Run ", "gpuclean: "))]
    assert titles == [
        *(
            line
            for number in (1, 2, 3)
            for line in (f"Run {number}/4", f"gpuclean: comprehensive cleanup after run {number} of 4")
        ),
        "Run 4/4",
        "gpuclean: quick cleanup",
        "gpuclean: memory in use",
        "gpuclean: cleanup after training",
    ]
    assert len(re.findall(r"^  before: cpu ", said, re.M)) == 5
    assert len(re.findall(r"^  after: cpu ", said, re.M)) == 5
    assert "failed" not in said


@alone
def test_a_bag_that_is_played_by_ros_2_is_stopped_with_its_nodes():
    other = standin("ros2", "launch", "demo", "demo.launch.py")
    bag = f"{sys.executable} {STANDINS / 'ros2'} launch demo demo.launch.py"
    _, stopped = run_example("--runs", "2", "--bag", bag)
    names = [name for name, _ in stopped]
    assert names.count("ROS 2 launch") >= 2, "one a run, and a child of its that has not become a node yet"
    assert set(names) <= {"ROS 2 launch", "ROS 2 node"}
    assert not any(is_alive(pid) for _, pid in stopped)
    assert is_alive(other.pid), "another script's"
