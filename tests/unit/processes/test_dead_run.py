"""Whether what a dead run left is certainly its own: on doubt it is told, and left alone."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_gpuclean.processes.dead_run import Candidate, DeadRun, find_doubts
from pytest_gpuclean.processes.discovery import OwnedProcess
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.ownership import Claim, Proof
from pytest_gpuclean.processes.run_record import RunRecord
from pytest_gpuclean.processes.surroundings import Surroundings
from unit.processes.fakeproc import NAMESPACE, FakeProc

TERMINAL, ANOTHER = 34816, 34817
EXITING = 0x4
RUN = RunRecord(
    claim=Claim(cookie="0123456789abcdef", uid=0, boot_id="b", pid_namespace="p", start_ticks=0),
    key=ProcessKey(1000, 1),
    command="pytest",
    started_at=0.0,
    terminal=TERMINAL,
    cgroup="0::/run",
)


def candidate(pid, *, start=None, parent=1, proof=Proof.COOKIE, terminal=0, cgroup="0::/run", host="", recorded=False):
    process = OwnedProcess(key=ProcessKey(pid, start or pid), parent_pid=parent, proof=proof)
    return Candidate(process=process, terminal=terminal, cgroup=cgroup, host=host, is_recorded=recorded)


def doubts(*candidates, inside=None):
    return {key.pid: reason for key, reason in find_doubts(candidates, RUN, inside).items()}


def test_nothing_is_doubted_where_nothing_speaks_against_it():
    assert doubts(candidate(10), candidate(11, terminal=TERMINAL), candidate(12, proof=Proof.DESCENDANT)) == {}


def test_another_terminal_and_another_control_group_are_somebody_elses_session():
    found = doubts(candidate(10, terminal=ANOTHER), candidate(11, cgroup="0::/user/app.scope"))
    assert found == {
        10: "it is in another terminal than the run was",
        11: "it is in another control group than the run was",
    }


def test_what_the_run_itself_had_written_down_is_its_own_wherever_it_is():
    assert doubts(candidate(10, terminal=ANOTHER, cgroup="x", recorded=True), candidate(11)) == {}


def test_what_started_after_a_session_was_left_may_be_started_from_there():
    found = doubts(candidate(10), candidate(20, host="tmux server"), candidate(30), candidate(40, parent=30))
    assert set(found) == {30, 40}
    assert found[30] == "it started after tmux server (pid 20), and a user may have started it from there"


def test_but_not_what_the_run_had_written_down_nor_what_is_below_that():
    bus = candidate(20, host="D-Bus", recorded=True)
    server, worker = candidate(30, recorded=True), candidate(40, parent=30)
    fork = candidate(50, proof=Proof.OPEN_LEDGER)
    assert doubts(bus, server, worker, fork) == {}
    assert set(doubts(bus, candidate(30, parent=20), candidate(40, parent=30))) == {30, 40}, "but what the bus started"


def test_what_a_user_does_in_a_tmux_of_the_run_is_written_down_too():
    before, tmux = candidate(10, recorded=True), candidate(20, host="tmux server", recorded=True)
    orphan, shell = candidate(30, recorded=True), candidate(40, recorded=True, terminal=ANOTHER)
    fork = candidate(50, proof=Proof.OPEN_LEDGER)
    assert set(doubts(before, tmux, orphan, shell, fork)) == {30, 40}


def test_a_cookie_says_nothing_where_this_session_has_it_too():
    sure, below, later = candidate(11, recorded=True), candidate(12, parent=11), candidate(60, recorded=True)
    reason = "this session itself was started from what that run left (pid 50)"
    assert doubts(candidate(10), sure, below, later, inside=ProcessKey(50, 50)) == {10: reason, 60: reason}


def test_a_server_in_whose_terminal_somebody_works_is_left_with_all_around_it():
    server = candidate(10, recorded=True)
    shell = candidate(20, parent=10, terminal=ANOTHER)
    editor = candidate(30, parent=20, terminal=ANOTHER)
    other = candidate(25, parent=10, proof=Proof.DESCENDANT)
    found = doubts(editor, shell, other, server)
    assert set(found) == {10, 20, 25, 30}
    assert found[10] == "pid 30 is below it: it is in another terminal than the run was"


@given(st.lists(st.tuples(*[st.integers(1, 6)] * 2, st.booleans(), st.booleans(), st.booleans()), max_size=6))
def test_what_is_below_a_doubted_one_is_doubted_and_circles_end(rows):
    candidates = {
        pid: candidate(pid, parent=parent, terminal=ANOTHER * away, recorded=known, host="screen" * host)
        for pid, parent, away, known, host in rows
    }
    found = doubts(*candidates.values())
    for pid, each in candidates.items():
        parent = each.process.parent_pid
        if parent in found and parent in candidates and parent != pid:
            assert pid in found


@pytest.mark.parametrize(
    ("how", "is_doubted"),
    [
        ({"flags": EXITING, "state": "R"}, False),
        ({"flags": EXITING, "state": "Z"}, False),
        ({"flags": EXITING, "state": "Z", "threads": 2}, True),
        ({}, True),
    ],
    ids=["just ending", "ended", "its main thread has ended", "alive"],
)
def test_what_ends_while_it_is_looked_at_is_no_session_of_a_user(tmp_path, how, is_doubted):
    """In cgroup v1 it has left its control group by then."""
    first, later = 5_000_001, 5_000_002  # no numbers of real processes, as this one's own might be
    proc = FakeProc(tmp_path)
    common = {"environ": b"GPUCLEAN_RUN=0123456789abcdef\0", "argv": b"python\0x.py\0", "uid": (7, 7)}
    proc.add(first, start=1000, cgroup="4:memory:/\n", **how, **common)
    proc.add(later, start=2000, cgroup="4:memory:/run\n", **common)
    claim = replace(RUN.claim, uid=7, boot_id="boot-1", pid_namespace=NAMESPACE)
    record = replace(RUN, claim=claim, cgroup="4:memory:/run\n")
    dead = DeadRun(record, Surroundings(pid=99, ancestors=()), proc)
    assert {process.pid for process in dead.survey()} == (set() if is_doubted else {first, later})
    assert {key.pid for key in dead.doubts} == ({first, later} if is_doubted else set())
