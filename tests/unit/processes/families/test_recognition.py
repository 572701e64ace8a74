"""Which command line is of which family: the shapes that were measured, and their near misses."""

import json
import os

import pytest

from pytest_gpuclean.processes.families import FAMILIES, families_with
from pytest_gpuclean.processes.families.interface import Command, Family, Stopped, recognize
from pytest_gpuclean.processes.families.shapes import PythonCall, python_call
from pytest_gpuclean.processes.families.tensorboard import TENSORBOARD

PY = "/venv/bin/python3.11"
DATA_SERVER = "/venv/lib/python3.11/site-packages/tensorboard_data_server/bin/server"
COMPILE = "/venv/lib/python3.11/site-packages/torch/_inductor/compile_worker/__main__.py"
DAEMON = "from ros2cli.daemon.daemonize import main; main()"
SPAWN = "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=7, pipe_handle=9)"

KNOWN = [
    ("TensorBoard", [PY, "/venv/bin/tensorboard", "--logdir", "runs"]),
    ("TensorBoard", ["python", "-m", "tensorboard.main", "--logdir=runs"]),
    ("TensorBoard", ["python3", "-um", "tensorboard", "--logdir=runs"]),
    ("TensorBoard", ["python3", "-X", "dev", "-W", "error", "-mtensorboard.main"]),
    ("TensorBoard", ["python3", "/venv/lib/python3.11/site-packages/tensorboard/main.py"]),
    ("TensorBoard", ["tensorboard", "--logdir", "runs"]),
    ("TensorBoard", [DATA_SERVER, "--logdir=runs"]),
    ("ROS 2 launch", ["/usr/bin/python3", "/opt/ros/jazzy/bin/ros2", "launch", "demo", "demo.launch.py"]),
    ("ros2 command", ["/usr/bin/python3", "/opt/ros/jazzy/bin/ros2", "topic", "echo", "/chatter"]),
    ("ROS 2 node", ["/opt/ros/jazzy/lib/demo_nodes_cpp/talker", "--ros-args", "-r", "__node:=talker"]),
    ("ROS 2 node", ["/usr/bin/python3", "/ws/install/demo/lib/demo/talker", "--ros-args", "-r", "__node:=t"]),
    ("ROS 2 node", ["python3", "talker.py", "--ros-args"]),
    ("ros2 daemon", ["/usr/bin/python3", "-c", DAEMON, "--name", "ros2-daemon", "--ros-domain-id", "0"]),
    ("ros2 daemon", ["/usr/bin/python3", "/opt/ros/humble/bin/_ros2_daemon", "--ros-domain-id", "0"]),
    ("Gazebo", ["ruby", "/usr/bin/gz", "sim", "-s", "world.sdf"]),
    ("Gazebo", ["gz sim server"]),
    ("Gazebo", ["gzserver", "--verbose", "empty.world"]),
    ("multiprocessing worker", [PY, "-c", SPAWN, "--multiprocessing-fork"]),
    ("multiprocessing worker", ["/opt/frozen/app", "--multiprocessing-fork", "tracker_fd=5"]),
    ("resource tracker", [PY, "-c", "from multiprocessing.resource_tracker import main;main(4)"]),
    ("resource tracker", [PY, "-c", "from joblib.externals.loky.backend.resource_tracker import main; main(7, False)"]),
    ("multiprocessing forkserver", [PY, "-c", "from multiprocessing.forkserver import main; main(8, 9, ['__main__'])"]),
    ("Inductor compile worker", [PY, COMPILE, "--kind=fork", "--workers=2"]),
    ("loky worker", [PY, "-m", "joblib.externals.loky.backend.popen_loky_posix", "--process-name", "LokyProcess-1"]),
    ("torch_shm_manager", ["/venv/lib/python3.11/site-packages/torch/bin/torch_shm_manager"]),
    ("wandb service", ["/venv/lib/python3.11/site-packages/wandb/bin/wandb-core", "--port-filename", "x"]),
    ("Spark gateway", ["java", "-cp", "x", "org.apache.spark.deploy.SparkSubmit", "pyspark-shell"]),
    ("Ray", ["/venv/lib/python3.11/site-packages/ray/core/src/ray/raylet/raylet", "--raylet_socket_name=x"]),
    ("Ray", ["/venv/lib/python3.11/site-packages/ray/core/src/ray/gcs/gcs_server"]),
    ("Ray", ["ray::IDLE"]),
    ("Ray", [PY, "-u", "/venv/lib/python3.11/site-packages/ray/dashboard/dashboard.py", "--host=127.0.0.1"]),
    ("Jupyter", [PY, "/venv/bin/jupyter-lab", "--no-browser"]),
    ("Jupyter", [PY, "-m", "jupyter_server"]),
    ("Jupyter kernel", [PY, "-m", "ipykernel_launcher", "-f", "kernel.json"]),
    ("vLLM", [PY, "/venv/bin/vllm", "serve", "facebook/opt-125m"]),
    ("vLLM", [PY, "-m", "vllm.entrypoints.openai.api_server", "--model", "x"]),
    ("Triton server", ["/opt/tritonserver/bin/tritonserver", "--model-repository=/models"]),
    ("ssh-agent", ["ssh-agent", "-s"]),
    ("GnuPG service", ["gpg-agent", "--homedir", "keys", "--use-standard-socket", "--daemon"]),
    ("D-Bus", ["/usr/bin/dbus-daemon", "--session"]),
    ("screen", ["SCREEN", "-dmS", "x"]),
    ("sccache server", ["/usr/bin/sccache"]),
    ("Gradle daemon", ["/usr/bin/java", "-cp", "x.jar", "org.gradle.launcher.daemon.bootstrap.GradleDaemon"]),
    ("Bazel server", ["bazel(workspace)", "--max_idle_secs=10800"]),
    ("adb server", ["adb", "-L", "tcp:5037", "fork-server", "server", "--reply-fd", "4"]),
    ("CUDA MPS", ["nvidia-cuda-mps-control", "-d"]),
]  # fmt: skip

UNKNOWN = [
    [],
    ["vim", "tensorboard"],
    ["vim", "/venv/bin/tensorboard"],
    ["grep", "-r", "tensorboard", "--ros-args"],
    ["tail", "-f", "/venv/lib/ros/talker", "--ros-args"],
    [PY, "my_tensorboard.py"],
    [PY, "tensorboard_export.py", "--logdir", "runs"],
    [PY, "train.py", "-m", "tensorboard.main"],
    [PY, "-c", "print('tensorboard')", "-m", "tensorboard"],
    [PY, "-c", "import x  # from multiprocessing.spawn import spawn_main"],
    [PY, "-m", "pytest", "tests/test_tensorboard.py"],
    [PY, "-m", "tensorboard.plugins.hparams.x"],
    [PY, "server.py", "vllm", "serve"],
    ["node", "tensorboard.js"],
    ["/srv/bin/server", "tensorboard_data_server/bin/server"],
    ["/opt/ros/jazzy/lib/demo/talker"],
    ["less", "gz", "sim"],
    ["ruby", "app.rb", "gz"],
    ["tmux", "attach"],
    ["sccache", "gcc", "-c", "x.c"],
    ["adb", "shell"],
    ["java", "-jar", "app.jar"],
    ["sleep", "100"],
]


@pytest.mark.parametrize(("name", "argv"), KNOWN, ids=lambda value: value if isinstance(value, str) else value[0][-30:])
def test_it_is_known(name, argv):
    family = recognize(FAMILIES, Command(argv=tuple(argv)))
    assert family is not None
    assert family.name == name


@pytest.mark.parametrize("argv", UNKNOWN, ids=str)
def test_it_is_like_any_other(argv):
    assert recognize(FAMILIES, Command(argv=tuple(argv))) is None


def test_a_tmux_server_names_itself():
    command = Command(argv=("tmux", "new", "-d"), name="tmux: server")
    assert recognize(FAMILIES, command).name == "tmux server"


def test_a_fork_is_known_unless_it_is_something_more():
    assert recognize(FAMILIES, Command(argv=(PY, "-m", "pytest"), is_fork=True)).name == "forked process"
    assert recognize(FAMILIES, Command(argv=(PY, "x.py"), name="pt_data_worker", is_fork=True)).name == (
        "DataLoader worker"
    )
    assert recognize(FAMILIES, Command(argv=(PY, COMPILE), is_fork=True)).name == "Inductor compile worker"
    served = Command(argv=(PY, "-c", "from multiprocessing.forkserver import main; main()"), is_fork=True)
    assert recognize(FAMILIES, served).name == "forked process", "a worker of the forkserver"
    assert recognize(FAMILIES, Command(argv=("nginx",), is_fork=True)) is None


def test_what_the_user_keeps_comes_before_any_family():
    families = families_with((TENSORBOARD,))
    command = Command(argv=("tensorboard",), environ={"GPUCLEAN_KEEP": "1"})
    assert recognize(families, command).name == "kept"
    assert recognize(families, Command(argv=("tensorboard",), environ={"GPUCLEAN_KEEP": "0"})).name == "TensorBoard"


def test_every_family_is_one():
    assert [family for family in families_with() if not isinstance(family, Family)] == []


@pytest.mark.parametrize(
    ("argv", "call"),
    [
        (["python", "x.py", "a"], PythonCall("script", "x.py", ("a",))),
        (["/usr/bin/python3.11", "-u", "-B", "x.py"], PythonCall("script", "x.py", ())),
        (["python3", "-m", "pkg", "-c", "y"], PythonCall("module", "pkg", ("-c", "y"))),
        (["python3", "-Im", "pkg"], PythonCall("module", "pkg", ())),
        (["python3", "-c", "code", "a"], PythonCall("code", "code", ("a",))),
        (["python3", "-W", "ignore", "x.py"], PythonCall("script", "x.py", ())),
        (["python3", "-Wignore", "x.py"], PythonCall("script", "x.py", ())),
        (["python3", "-Xdev", "-X", "importtime", "x.py"], PythonCall("script", "x.py", ())),
        (["python3", "--check-hash-based-pycs", "always", "x.py"], PythonCall("script", "x.py", ())),
        (["python3", "-", "a"], PythonCall("script", "-", ("a",))),
        (["-python3", "x.py"], PythonCall("script", "x.py", ())),
        (["pypy3", "x.py"], PythonCall("script", "x.py", ())),
        (["python3"], None),
        (["python3", "-i"], None),
        (["python3", "-m"], PythonCall("module", "", ())),
        (["pythonista", "x.py"], None),
        (["bash", "x.py"], None),
    ],
    ids=str,
)
def test_a_command_line_of_python_is_read_as_python_reads_it(argv, call):
    assert python_call(Command(argv=tuple(argv))) == call


def stopped(folder, **more):
    values = {"pid": 10, "ports": (6006,), "started_at": 1000.0, "ended_at": 2000.0}
    return Stopped(command=Command(environ={"TMPDIR": str(folder)}), **{**values, **more})


def info_file(folder, **more):
    path = folder / ".tensorboard-info" / "pid-10.info"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"pid": 10, "port": 6006, "start_time": 1500, **more}))
    return path


def test_the_info_file_of_a_server_that_has_ended_is_removed(tmp_path):
    path = info_file(tmp_path)
    assert TENSORBOARD.after(stopped(tmp_path)) == f"removed {path}"
    assert not path.exists()


@pytest.mark.parametrize(
    "wrong", [{"pid": 11}, {"port": 6007}, {"start_time": 2500}, {"start_time": 500}, {"start_time": "x"}], ids=str
)
def test_the_info_file_of_another_server_stays(tmp_path, wrong):
    path = info_file(tmp_path, **wrong)
    assert TENSORBOARD.after(stopped(tmp_path)) == ""
    assert path.exists()


def test_what_is_no_info_file_stays(tmp_path):
    assert TENSORBOARD.after(stopped(tmp_path)) == ""
    path = info_file(tmp_path)
    for text in ("", "[]", "{}", "\x00", "1"):
        path.write_text(text)
        assert TENSORBOARD.after(stopped(tmp_path)) == ""
        assert path.exists()
    info_file(tmp_path).rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", path)
    assert TENSORBOARD.after(stopped(tmp_path)) == ""
    assert (tmp_path / "elsewhere").exists()


def test_a_copy_of_the_run_is_known_whatever_its_title_is():
    retitled = Command(argv=("[pytest-xdist running] test_x.py",), is_fork=True, is_fork_of_run=True)
    assert recognize(FAMILIES, retitled).name == "forked process"
