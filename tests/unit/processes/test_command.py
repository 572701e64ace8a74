"""What a process is, in one line that a terminal can be given."""

import pytest

from pytest_gpuclean.processes.command import command_line, label, read_command, shorten_command
from pytest_gpuclean.processes.families.interface import Command
from pytest_gpuclean.processes.families.tensorboard import TENSORBOARD
from unit.processes.fakeproc import FakeProc


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("python3", "-u", "/home/me/train.py", "--lr", "1"), "python train.py"),
        (("python3", "-m", "http.server"), "python -m http.server"),
        (("/usr/bin/python3", "-c", "import time"), "python -c import time"),
        (("/usr/bin/sleep", "100"), "sleep"),
        (("-bash",), "bash"),
        (("postgres: idle",), "postgres: idle"),
    ],
    ids=str,
)
def test_a_process_is_labelled_by_what_it_runs(argv, said):
    assert label(Command(argv=argv)) == said


def test_a_process_without_a_command_line_is_labelled_by_what_else_is_known():
    assert label(Command(executable="/bin/x", name="y")) == "x"
    assert label(Command(name="y")) == "y"
    assert label(Command()) == "process"
    assert command_line(Command(name="y")) == "[y]"


def test_a_family_gives_its_name():
    assert label(Command(argv=("python", "x")), TENSORBOARD) == "TensorBoard"


def test_a_long_command_line_is_cut_off():
    assert command_line(Command(argv=("x" * 200,))) == "x" * 117 + "..."
    assert command_line(Command(argv=("x" * 120,))) == "x" * 120
    assert len(command_line(Command(argv=("\n" * 200,)))) == 120


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/deep/bin/python /deep/bin/pytest -q", "python pytest -q"),
        ("/deep/bin/python -m pytest /deep/tests", "python -m pytest /dee..."),
        ("/deep/workspace/of/a/job/bin/trains", "trains"),
        ("python --logdir=/deep/workspace/x", "python --logdir=/deep..."),
        ("/bin/python /bin/x.py -q", "/bin/python /bin/x.py -q"),
        ("a" * 30, "a" * 21 + "..."),
    ],
)
def test_where_a_command_line_is_too_long_the_folders_of_program_and_script_go_first(text, shown):
    assert shorten_command(text, 24) == shown


def test_a_fork_has_the_command_line_of_its_parent_or_of_the_run(tmp_path):
    proc = FakeProc(tmp_path)
    proc.add(5, argv=b"python\0-m\0pytest\0")
    proc.add(10, argv=b"python\0x.py\0")
    proc.add(20, parent=10, argv=b"python\0x.py\0")
    proc.add(30, parent=1, argv=b"python\0-m\0pytest\0", environ=b"GPUCLEAN_KEEP=1\0SECRET=2\0")
    proc.add(40, parent=10, argv=b"")
    assert read_command(proc, 20, 5).is_fork
    assert read_command(proc, 30, 5).is_fork
    assert read_command(proc, 30, 5).environ == {"GPUCLEAN_KEEP": "1"}
    assert not read_command(proc, 10, 5).is_fork
    assert not read_command(proc, 40, 5).is_fork
    assert read_command(proc, 99, 5) == Command()
