"""The functions for scripts, as far as they concern no process: names, bounds, waits, words."""

import io
import sys
import threading

import pytest

from pytest_gpuclean.cleanup.callables import CallableCleaner
from pytest_gpuclean.cleanup.interface import Occasion, Skip
from pytest_gpuclean.errors import InputError
from pytest_gpuclean.memory.gauge import Gauge
from pytest_gpuclean.model.cleanup import CleanupResult, StepResult
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.processes.families.interface import Command
from pytest_gpuclean.processes.selectors import Selector
from pytest_gpuclean.scripts.naming import read_host_wide
from pytest_gpuclean.scripts.own import is_board, is_robot, is_script
from pytest_gpuclean.scripts.session import Session
from pytest_gpuclean.scripts.steps import RefusedStep, SettleStep, bound_for, told
from pytest_gpuclean.scripts.telling import Teller, result_lines
from pytest_gpuclean.units import MiB
from unit.fakes import DEVICE, Holding, ScriptedProbe

OCCASION = Occasion(level="comprehensive")


@pytest.fixture
def gpu():
    return ScriptedProbe()


@pytest.fixture
def session(gpu):
    return Session(Gauge("device", [gpu]), cleaners=[])


# -- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, False, (), [], set()])
def test_nothing_is_named_by_default(value):
    assert read_host_wide(value, "f()", true_means="ros2") == ()


def test_what_may_be_named():
    assert read_host_wide(True, "f()", true_means="ros2", only=("ros2",)) == (Selector("ros2"),)
    assert read_host_wide("ros2,port:1", "f()") == (Selector("ros2"), Selector("port", port=1))
    assert read_host_wide(iter(["ros2", "drop-caches"]), "f()") == (Selector("ros2"), Selector("drop-caches"))


@pytest.mark.parametrize(
    ("value", "options", "said"),
    [
        (True, {}, "f(): host_wide: True does not say what; write names, such as 'ros2,port:6006'"),
        ("", {}, "f(): host_wide: '' cannot be named"),
        ("everything", {}, "f(): host_wide: 'everything' cannot be named"),
        (1, {}, "f(): host_wide: 1 cannot be named"),
        (["ros2", None], {}, "f(): host_wide: None cannot be named"),
        ("ros2,port:1", {"only": ("ros2",)}, "f(): host_wide: port:1 is not its business; it takes ros2"),
    ],
)
def test_what_is_refused_names_the_function(value, options, said):
    with pytest.raises(InputError) as caught:
        read_host_wide(value, "f()", **options)
    assert str(caught.value).startswith(said)


# -- kinds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "is_one"),
    [
        (["python", "bag_test.py"], True),
        (["python3.11", "-u", "/home/me/ms_test.py", "--x"], True),
        (["python", "-c", "bag_test.py"], False),
        (["python", "-m", "train"], False),
        (["python", "/usr/bin/celery", "worker"], False),
        (["python", "/x/tensorboard/main.py", "--logdir", "x"], False),
        (["python", "/x/ray/dashboard.py"], False),
        (["vim", "bag_test.py"], False),
        ([], False),
    ],
)
def test_a_script_is_a_python_file_and_no_server_that_is_known(argv, is_one):
    assert is_script(Command(argv=tuple(argv))) is is_one


def test_a_script_may_be_meant_by_its_name():
    command = Command(argv=("python", "x/bag_test.py"))
    assert is_script(command, ["bag_test.py"])
    assert not is_script(command, ["ms_test.py"])
    assert not is_script(Command(argv=("python", "experiment.py"), is_fork_of_run=True)), (
        "a worker of the script itself"
    )


def test_the_other_kinds():
    assert is_robot(Command(argv=("/opt/ros/jazzy/lib/demo/talker", "--ros-args")))
    assert is_robot(Command(argv=("gzserver", "world.sdf")))
    assert not is_robot(Command(argv=("vim", "ros2")))
    assert is_board(Command(argv=("python", "-m", "tensorboard.main")))
    assert not is_board(Command(argv=("tail", "-f", "tensorboard.log")))


# -- waiting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "comprehensive", "bound"),
    [
        (1, True, 10),
        (100, True, 10),
        (200, True, 20),
        (10_000, True, 30),
        (0, False, 5),
        (100, False, 5),
        (200, False, 10),
        (10_000, False, 15),
    ],
)
def test_the_bound_grows_with_the_number_of_runs(runs, comprehensive, bound):
    assert bound_for(runs, comprehensive=comprehensive) == bound


def renewed(session):
    session.renew(session.gauge.read())
    return session


def test_where_the_memory_is_back_nothing_waits(session, gpu):
    renewed(session)
    assert SettleStep(session, 30).clean(OCCASION) == Skip("the memory is back")
    gpu.in_use = MiB
    assert "no thread is left" in SettleStep(session, 30).clean(OCCASION).reason


class Worker:
    """A thread of the run that holds memory until it is told to end."""

    def __init__(self, gpu):
        self.may_end = threading.Event()
        self.thread = threading.Thread(target=self.work, args=(gpu,), name="loader")
        self.thread.start()

    def work(self, gpu):
        held = Holding(gpu)
        self.may_end.wait(20)
        del held

    def end(self):
        self.may_end.set()
        self.thread.join()


def test_memory_that_a_thread_gives_back_is_waited_for_and_no_longer(session, gpu):
    renewed(session)
    worker = Worker(gpu)
    looks = gpu.looks

    class EndsOnThirdLook(ScriptedProbe):
        def read(self):
            if gpu.looks - looks == 3:
                worker.end()
            return gpu.read()

    session.gauge = Gauge("device", [EndsOnThirdLook()])
    assert SettleStep(session, 20).clean(OCCASION) == "the memory is back"
    assert session.patience_for(20) == 20
    assert gpu.in_use == 0


def test_a_thread_that_stays_costs_less_and_less(session, gpu):
    worker = Worker(gpu)
    try:
        renewed(session)
        gpu.in_use += MiB
        assert "no thread is left" in SettleStep(session, 0.1).clean(OCCASION).reason, "it was there before the run"
        other = Worker(gpu)
        try:
            said = SettleStep(session, 0.1).clean(OCCASION)
            assert said == f"{DEVICE} 5.0 MiB more in use than before the run; still running: loader"
            assert session.patience_for(30) == 0.5
            assert SettleStep(session, 0).clean(OCCASION) == Skip("no time is given for it")
        finally:
            other.end()
    finally:
        worker.end()


def test_before_the_first_cleanup_a_wait_is_short(session):
    assert session.patience_for(30) == 2
    assert renewed(session).patience_for(30) == 30


# -- steps ------------------------------------------------------------------------------------------------------


def test_a_step_that_fails_leaves_the_others_and_the_figures(session, gpu):
    calls = []
    gpu.in_use = 5 * MiB

    def breaks():
        calls.append("breaks")
        raise ValueError("no")

    def frees():
        calls.append("frees")
        gpu.in_use = 0

    result = session.clean([CallableCleaner(breaks), RefusedStep("reset", "refused"), CallableCleaner(frees)], "quick")
    assert calls == ["breaks", "frees"]
    assert [step.status for step in result.steps] == ["failed", "failed", "done"]
    assert [step.detail for step in result.failed] == ["ValueError: no", "refused"]
    assert (result.before, result.after, result.given_back_bytes) == ({DEVICE: 5 * MiB}, {DEVICE: 0}, 5 * MiB)


def test_callables_are_taken_once_the_last_one_first(session):
    session.callables += [int, str]
    assert session.take_callables() == [str, int]
    assert session.take_callables() == []


def test_processes_that_are_still_there_are_a_failure():
    gone = LeftProcess(pid=1, name="sleep", command="sleep 9", ended_by="SIGINT", seconds=0.01)
    kept = LeftProcess(pid=2, name="tmux server", command="tmux", reason="shared", is_spared=True)
    stuck = LeftProcess(pid=3, name="node", command="node", reason="it is in uninterruptible sleep (D)")
    assert told([]) == ""
    assert told([gone, kept]) == "sleep (pid 1): ended by SIGINT after 10 ms; tmux server (pid 2): goes on: shared"
    with pytest.raises(Exception, match=r"node \(pid 3\): is still alive: it is in uninterruptible sleep"):
        told([gone, stuck])


# -- words ------------------------------------------------------------------------------------------------------


def test_each_step_is_told_with_success_or_failure_and_memory_before_and_after():
    result = CleanupResult(
        level="quick",
        steps=(
            StepResult(
                name="garbage", status="done", detail="3 objects", given_back={"cuda:0": 64 * MiB}, seconds=0.018
            ),
            StepResult(name="drop-caches", status="failed", detail="this needs root", seconds=0.0001),
            StepResult(name="jax", status="skipped", detail="JAX is not in use"),
            StepResult(name="cupy", status="skipped", detail="CuPy is not loaded"),
        ),
        before={"cuda:0": 96 * MiB},
        after={"cuda:0": 32 * MiB},
        seconds=0.02,
    )
    assert list(result_lines("after run 3 of 100", result, ["a note"])) == [
        "gpuclean: after run 3 of 100",
        "  before: cuda:0 96.0 MiB",
        "  garbage: ok: 3 objects, cuda:0 -64.0 MiB, 18 ms",
        "  drop-caches: failed: this needs root, 0.1 ms",
        "  nothing to do: jax, cupy",
        "  a note",
        "  after: cuda:0 32.0 MiB, 64.0 MiB given back, in 20 ms",
    ]


def test_words_that_cannot_be_printed_break_nothing(monkeypatch):
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    Teller(True)("naïve")
    assert ascii_only.buffer.getvalue() == b"na\\xefve\n"
    ascii_only.close()
    Teller(True)("closed")
    monkeypatch.setattr(sys, "stdout", None)
    Teller(True)("none at all")


def test_nothing_is_printed_where_nobody_wants_it(capsys):
    Teller(False)("quiet")
    Teller(True)("loud")
    assert capsys.readouterr().out == "loud\n"
