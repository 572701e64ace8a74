"""Real TensorBoard, and stand-ins for ROS 2 and Gazebo that behave as the real ones were measured to."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from processes.alone import alone, skip
from processes.starting import STANDINS, end, is_alive, standin, until_ready, wait_for
from processes.test_stop import World
from pytest_gpuclean.processes.ports import is_free, ports_of
from pytest_gpuclean.processes.procfs import Procfs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are proved by /proc")

PROCFS = Procfs()


def tensorboard(kind):
    """Start a real one, and wait for its info file: written once it listens."""
    if importlib.util.find_spec("tensorboard") is None:
        skip("tensorboard is not installed")
    script = Path(sys.executable).parent / "tensorboard"
    by_script = [str(script)] if script.exists() else [shutil.which("tensorboard") or "tensorboard"]
    call = {"script": by_script, "main": [sys.executable, "-m", "tensorboard.main"]}[kind]
    process = subprocess.Popen(
        [*call, "--logdir", ".", "--port", "0", "--host", "127.0.0.1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    info = Path(os.environ["TMPDIR"]) / ".tensorboard-info" / f"pid-{process.pid}.info"
    wait_for(lambda: info.exists() and info.read_text().strip(), "TensorBoard", 60)
    return process, info


@alone
def test_tensorboard_by_script_is_stopped_with_its_data_server():
    world = World()
    process, info = tensorboard("script")
    port = json.loads(info.read_text())["port"]
    below = [found.pid for found in world.discovery.below()]
    from pytest_gpuclean.processes.families.tensorboard import TensorBoard

    class Patient(TensorBoard):
        grace_seconds = 20.0  # with TensorFlow, on a starved machine

    told = world.stop(seconds=60, families=(Patient(),))
    left = told[process.pid]
    assert (left.name, left.ended_by, port in left.ports) == ("TensorBoard", "SIGINT", True)
    assert {told[pid].name for pid in below} == {"TensorBoard"}
    assert not any(is_alive(pid) for pid in below)
    assert is_free(PROCFS, port)
    assert not info.exists()
    assert process.wait() == 0


@alone
def test_the_info_file_goes_after_a_kill():
    world = World()
    process, info = tensorboard("main")
    other = info.with_name("pid-1.info")
    other.write_text(info.read_text())
    from pytest_gpuclean.processes.families.tensorboard import TensorBoard

    class Hard(TensorBoard):
        first_signal = signal.SIGKILL

    left = world.stop(families=(Hard(),))[process.pid]
    assert left.ended_by == "SIGKILL"
    assert left.reason == f"removed {info}"
    assert not info.exists()
    assert other.exists(), "another server's"


@alone
def test_a_users_own_tensorboard_goes_on():
    mine_before, info = tensorboard("main")
    world = World()
    process, _ = tensorboard("main")
    told = world.stop()
    assert not is_alive(process.pid)
    assert mine_before.pid not in told
    assert is_alive(mine_before.pid)
    assert info.exists()


def ros2(*arguments):
    process = standin("ros2", "launch", "demo", "demo.launch.py", *arguments)
    return process, [int(pid) for pid in process.said]


@alone
def test_a_launch_ends_with_its_nodes_at_once_and_none_is_started_again():
    world = World()
    launch, nodes = ros2()
    begin = time.monotonic()
    told = world.stop()
    assert (told[launch.pid].name, told[launch.pid].ended_by) == ("ROS 2 launch", "SIGINT")
    assert {(told[pid].name, told[pid].ended_by) for pid in nodes} == {("ROS 2 node", "SIGINT")}
    assert time.monotonic() - begin < 4, "the launch alone would have waited for 5 seconds"
    assert launch.wait() == 0
    assert [process for process in world.discovery.below() if not process.is_zombie] == []


@alone
def test_a_launch_that_was_killed_leaves_nodes_that_are_stopped_all_the_same():
    world = World()
    launch, nodes = ros2()
    launch.kill()
    launch.wait()
    assert [is_alive(pid) for pid in nodes] == [True, True]
    told = world.stop()
    assert {told[pid].ended_by for pid in nodes} == {"SIGINT"}


@alone
def test_a_node_that_comes_again_while_it_is_stopped_is_stopped_too():
    world = World()
    launch, nodes = ros2()
    os.kill(nodes[0], signal.SIGKILL)
    told = world.stop()
    assert not is_alive(launch.pid)
    assert [process for process in world.discovery.below() if not process.is_zombie] == []
    assert told[launch.pid].ended_by in ("SIGINT", "SIGTERM")


@alone
def test_the_ros2_daemon_is_stopped_with_its_port():
    world = World()
    caller = subprocess.Popen(
        [
            *(sys.executable, "-c", "from ros2cli.daemon.daemonize import main; main()"),
            *("--name", "ros2-daemon", "--ros-domain-id", "0"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(STANDINS), os.environ["PYTHONPATH"]])},
    )
    pid, port = map(int, until_ready(caller).said)
    caller.wait()
    left = world.stop()[pid]
    assert (left.name, left.ports) == ("ros2 daemon", (port,))
    assert not is_alive(pid)
    assert is_free(PROCFS, port)


@alone
def test_gazebo_gets_the_one_signal_that_it_passes_on():
    world = World()
    server = subprocess.Popen(
        ["ruby", str(STANDINS / "gz"), "sim"], executable=sys.executable, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONHOME": sys.base_prefix},
    )  # fmt: skip
    children = [int(pid) for pid in until_ready(server).said]
    told = world.stop()
    assert (told[server.pid].name, told[server.pid].ended_by) == ("Gazebo", "SIGINT")
    assert not any(is_alive(pid) for pid in children)
    assert server.wait() == 0


@alone
def test_an_innocent_web_server_with_tensorboard_in_its_name_is_no_tensorboard():
    world = World()
    Path("tensorboard_viewer.py").write_text((STANDINS / "listener.py").read_text())
    server = until_ready(
        subprocess.Popen([sys.executable, "tensorboard_viewer.py", "0"], stdout=subprocess.PIPE, text=True)
    )
    assert ports_of(PROCFS, [server.pid])
    assert world.stop()[server.pid].name == "python tensorboard_viewer.py"
    end(server.pid)
