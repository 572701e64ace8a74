"""What may be named to reach beyond the run's own, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.processes.families.interface import Command
from pytest_gpuclean.processes.selectors import Selector, parse_selectors


def parse(value):
    return [str(selector) for selector in parse_selectors(value, "--gpu-host-wide")]


def test_what_is_named():
    text = "tensorboard, ros2,port:6006 ,script:bag_test.py,ros2"
    names = ["tensorboard", "ros2", "port:6006", "script:bag_test.py"]
    assert parse(text) == names
    assert parse(names) == names
    assert parse(["port:1,port:65535"]) == ["port:1", "port:65535"]
    assert parse_selectors("port: 6006", "x") == (Selector("port", port=6006),)
    memory = parse_selectors("drop-caches,gpu-reset", "x")
    assert [(str(each), each.means_processes, each.takes_what_is_below) for each in memory] == [
        ("drop-caches", False, False),
        ("gpu-reset", False, False),
    ]
    assert all(each.means_processes for each in parse_selectors(names, "x"))


@pytest.mark.parametrize(
    ("value", "wrong", "right"),
    [
        ("tensorbord", "'tensorbord' cannot be named", "write tensorboard, ros2, port:N"),
        ("TensorBoard", "'TensorBoard' cannot be named", "write tensorboard"),
        ("", "'' cannot be named", "write tensorboard"),
        ("tensorboard,,ros2", "'' cannot be named", "write tensorboard"),
        ([], "nothing is named", "write tensorboard"),
        (6006, "6006 cannot be named", "port:N"),
        (None, "None cannot be named", "port:N"),
        (["ros2", 3], "3 cannot be named", "port:N"),
        ("port:0", "'port:0' names no port", "from 1 to 65535"),
        ("port:65536", "'port:65536' names no port", "from 1 to 65535"),
        ("port:", "'port:' names no port", "port:6006"),
        ("port:-1", "'port:-1' names no port", "port:6006"),
        ("port:6006x", "'port:6006x' names no port", "port:6006"),
        ("port:٣", "names no port", "port:6006"),
        ("port:" + "9" * 10_000, "names no port", "port:6006"),
        ("port", "'port' cannot be named", "port:N"),
        ("script", "'script' cannot be named", "script:NAME"),
        ("script:", "'script:' names no script", "script:bag_test.py"),
        ("script:  ", "names no script", "script:bag_test.py"),
        ("script:..", "names no script", "script:bag_test.py"),
        ("script:a/b.py", "'script:a/b.py' names a path, and file names are compared", "script:bag_test.py"),
        ("script:*.py", "is a pattern", "script:bag_test.py"),
        ("name:python", "'name:python' cannot be named", "script:NAME"),
        ("tensorboard:6006", "cannot be named", "port:N"),
        ("drop_caches", "'drop_caches' cannot be named", "drop-caches or gpu-reset"),
        ("gpu-reset:0", "'gpu-reset:0' cannot be named", "drop-caches or gpu-reset"),
    ],
)
def test_what_is_refused_names_the_value_its_source_and_what_would_be_right(value, wrong, right):
    with pytest.raises(InputError) as caught:
        parse_selectors(value, "--gpu-host-wide")
    said = str(caught.value)
    assert said.startswith("--gpu-host-wide: ")
    assert wrong in said
    assert right in said


@given(st.one_of(st.text(), st.lists(st.text()), st.integers()))
def test_whatever_is_given_is_read_or_refused(value):
    try:
        found = parse_selectors(value, "x")
    except InputError:
        return
    assert parse_selectors([str(selector) for selector in found], "x") == found


SCRIPT = Selector("script", script="bag_test.py")


@pytest.mark.parametrize(
    ("argv", "fits"),
    [
        (["python", "bag_test.py"], True),
        (["/usr/bin/python3.11", "-u", "/home/me/bag_test.py", "--bag", "x"], True),
        (["python", "-W", "ignore", "-X", "dev", "tools/bag_test.py"], True),
        (["python", "my_bag_test.py"], False),
        (["python", "bag_test.py.bak"], False),
        (["python", "bag_test"], False),
        (["python", "other.py", "bag_test.py"], False),
        (["python", "-c", "bag_test.py"], False),
        (["python", "-m", "pdb", "bag_test.py"], False),
        (["python", "-m", "bag_test.py"], False),
        (["python", "/usr/bin/pytest", "bag_test.py"], False),
        (["python", "bag_test.py/run.py"], False),
        (["vim", "bag_test.py"], False),
        (["grep", "bag_test.py"], False),
        (["grep", "-r", "python bag_test.py"], False),
        (["sh", "-c", "python bag_test.py"], False),
        (["tail", "-f", "python", "bag_test.py"], False),
        (["pythonista", "bag_test.py"], False),
        (["bag_test.py"], False),
        ([], False),
    ],
)
def test_a_script_is_the_script_argument_of_a_python(argv, fits):
    assert SCRIPT.fits(Command(argv=tuple(argv))) is fits


@pytest.mark.parametrize(
    ("kind", "argv", "fits"),
    [
        ("tensorboard", ["python", "/usr/bin/tensorboard", "--logdir", "x"], True),
        ("tensorboard", ["python", "-m", "tensorboard.main"], True),
        ("tensorboard", ["vim", "tensorboard"], False),
        ("tensorboard", ["python", "train.py", "--tensorboard"], False),
        ("tensorboard", ["tail", "-f", "tensorboard.log"], False),
        ("ros2", ["/usr/bin/python3", "/opt/ros/jazzy/bin/ros2", "launch", "a", "b.py"], True),
        ("ros2", ["/opt/ros/jazzy/lib/demo/talker", "--ros-args"], True),
        ("ros2", ["python", "-c", "from ros2cli.daemon.daemonize import main; main()", "--name", "ros2-daemon"], True),
        ("ros2", ["/opt/ros/jazzy/lib/demo/talker"], False),
        ("ros2", ["vim", "/opt/ros/jazzy/bin/ros2"], False),
        ("ros2", ["code", "ros2_ws"], False),
        ("ros2", ["gzserver", "world.sdf"], False),
        ("port", ["python", "-m", "http.server", "6006"], False),
    ],
)
def test_the_others_are_the_exact_shapes_of_their_families(kind, argv, fits):
    selector = Selector(kind, port=6006 if kind == "port" else 0)
    assert selector.fits(Command(argv=tuple(argv))) is fits
