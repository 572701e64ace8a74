"""Proofs: what they need, one by one, and what a number that was given to another process cannot fake."""

import dataclasses
import os

from hypothesis import given
from hypothesis import strategies as st

from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.lineage import Link, ancestors_of, descendants_of, line_above
from pytest_gpuclean.processes.ownership import Claim, LedgerFile, Proof
from pytest_gpuclean.processes.tier import read_tier
from unit.processes.fakeproc import NAMESPACE, FakeProc

COOKIE = b"A=1\0GPUCLEAN_RUN=outer/run\0B=2\0"


def claim(**more):
    fields = {"cookie": "outer/run", "uid": 1000, "boot_id": "boot-1", "pid_namespace": NAMESPACE, "start_ticks": 500}
    return Claim(**{**fields, **more})


def test_the_cookie_proves(tmp_path):
    proc = FakeProc(tmp_path)
    assert claim().prove(proc, proc.add(10, environ=COOKIE)) is Proof.COOKIE


def test_a_run_inside_the_run_bears_its_cookie_too(tmp_path):
    proc = FakeProc(tmp_path)
    inner = COOKIE.replace(b"outer/run", b"outer/run/gw0/more")
    assert claim().prove(proc, proc.add(10, environ=inner)) is Proof.COOKIE


def test_a_process_that_is_just_being_executed_is_waited_for(tmp_path):
    class Executing(FakeProc):
        def wait_for_exec(self, pid):
            self.add(pid, environ=COOKIE)

    proc = Executing(tmp_path)
    assert claim().prove(proc, proc.add(10, environ=b"")) is Proof.COOKIE


def test_a_cookie_that_only_looks_alike_does_not(tmp_path):
    proc = FakeProc(tmp_path)
    for value in (b"outer/run2", b"outer", b"outer/ru", b"x/outer/run", b"", b"outer/runner/x"):
        environ = b"GPUCLEAN_RUN=" + value + b"\0NOTE=GPUCLEAN_RUN=outer/run\0MY_GPUCLEAN_RUN=outer/run\0"
        assert claim().prove(proc, proc.add(10, environ=environ)) is None


def test_the_cookie_needs_the_same_user_namespace_and_a_later_start(tmp_path):
    proc = FakeProc(tmp_path)
    assert claim().prove(proc, proc.add(10, environ=COOKIE, uid=(1001, 1001))) is None
    assert claim().prove(proc, proc.add(10, environ=COOKIE, uid=(1000, 0))) is None, "a setuid program"
    assert claim().prove(proc, proc.add(10, environ=COOKIE, start=499)) is None
    assert claim().prove(proc, proc.add(11, environ=COOKIE, namespace="pid:[4026539999]")) is None


def test_a_recorded_process_is_known_by_its_start_too(tmp_path):
    proc = FakeProc(tmp_path)
    recorded = claim(recorded=frozenset({ProcessKey(10, 1000)}))
    assert recorded.prove(proc, proc.add(10, start=1000)) is Proof.RECORDED
    assert recorded.prove(proc, proc.add(10, start=1001)) is None, "its number was given to another one"
    assert recorded.prove(proc, proc.add(10, start=1000, uid=(0, 0))) is None


def test_a_claim_of_another_start_of_the_system_holds_no_more(tmp_path):
    proc = FakeProc(tmp_path)
    proc.add(os.getpid())
    assert claim().holds_here(proc)
    proc.boot("boot-2")
    assert not claim().holds_here(proc)
    assert not claim(boot_id="boot-2", pid_namespace="pid:[1]").holds_here(proc)


def test_the_ledger_proves_by_file_number_and_flags(tmp_path):
    proc = FakeProc(tmp_path)
    file = tmp_path / "ledger"
    file.touch()
    found = file.stat()
    stat = proc.add(10)
    proc.descriptor(10, 9, file)
    (tmp_path / "10/fdinfo").mkdir()
    (tmp_path / "10/fdinfo/9").write_text("pos:\t0\nflags:\t02102002\nmnt_id:\t29\n")
    ledger = LedgerFile(found.st_dev, found.st_ino, 9, 0o2102002)
    assert claim(ledger=ledger).prove(proc, stat) is Proof.OPEN_LEDGER
    for wrong in ({"descriptor": 8}, {"flags": 0o2102000}, {"inode": 1}, {"device": 1}):
        assert claim(ledger=dataclasses.replace(ledger, **wrong)).prove(proc, stat) is None


KEYS = st.builds(ProcessKey, st.integers(1, 2**22), st.integers(0, 2**60))
CLAIMS = st.builds(
    Claim,
    cookie=st.text(max_size=8),
    uid=st.integers(0, 2**32),
    boot_id=st.text(max_size=8),
    pid_namespace=st.text(max_size=8),
    start_ticks=st.integers(0, 2**60),
    ledger=st.none() | st.builds(LedgerFile, *[st.integers(0, 2**60)] * 4),
    recorded=st.frozensets(KEYS, max_size=4),
)


@given(CLAIMS)
def test_a_claim_comes_back_the_same_from_json(written):
    import json

    assert Claim.from_wire(json.loads(json.dumps(written.to_wire()))) == written


def test_a_line_goes_up_to_the_top(tmp_path):
    proc = FakeProc(tmp_path)
    for pid, parent in ((5, 1), (10, 5), (20, 10), (30, 20)):
        proc.add(pid, parent=parent, start=pid * 10)
    line = line_above(proc, proc.stat(30), 10)
    assert line.reaches_top
    assert line.above == (Link(20, 200, 10),)
    assert not line_above(proc, proc.stat(5), 10).reaches_top
    assert ancestors_of(proc, 20) == [ProcessKey(10, 100), ProcessKey(5, 50)]


class Changing(FakeProc):
    """A /proc in which something happens after so many reads of a stat."""

    def __init__(self, folder, after, happens):
        self._left, self._happens = None, happens
        super().__init__(folder)
        self._after = after

    def begin(self):
        self._left = self._after

    def stat(self, pid):
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._happens(self)
        return super().stat(pid)


def test_a_line_that_changes_while_it_is_read_is_read_again(tmp_path):
    def orphan(proc):
        proc.add(30, parent=1, start=300)

    for after in (2, 3):
        proc = Changing(tmp_path / str(after), after, orphan)
        for pid, parent in ((10, 1), (20, 10), (30, 20)):
            proc.add(pid, parent=parent, start=pid * 10)
        stat = proc.stat(30)
        proc.begin()
        line = line_above(proc, stat, 10)
        assert not line.reaches_top


def test_a_number_given_to_another_process_while_the_line_is_read_gives_no_line(tmp_path):
    def reuse(proc):
        proc.add(30, parent=20, start=999)

    proc = Changing(tmp_path, 2, reuse)
    for pid, parent in ((10, 1), (20, 10), (30, 20)):
        proc.add(pid, parent=parent, start=pid * 10)
    stat = proc.stat(30)
    proc.begin()
    assert line_above(proc, stat, 10) is None


def test_the_walk_gives_parents_first_and_does_not_enter_what_is_passed_over(tmp_path):
    proc = FakeProc(tmp_path)
    for pid, children in ((10, [20, 21]), (20, [30]), (21, [31]), (30, []), (31, [])):
        proc.add(pid, children=children, start=pid)
    assert [stat.pid for stat in descendants_of(proc, 10)] == [20, 30, 21, 31]
    assert [stat.pid for stat in descendants_of(proc, 10, frozenset({ProcessKey(20, 20)}))] == [21, 31]
    assert [stat.pid for stat in descendants_of(proc, 10, frozenset({ProcessKey(20, 21)}))] == [20, 30, 21, 31]


def test_without_lists_of_children_the_walk_reads_everybodys_parent(tmp_path):
    proc = FakeProc(tmp_path)
    for pid, parent in ((10, 1), (20, 10), (21, 10), (30, 20), (40, 1)):
        proc.add(pid, parent=parent, start=pid)
    assert sorted(stat.pid for stat in descendants_of(proc, 10)) == [20, 21, 30]
    assert [stat.pid for stat in descendants_of(proc, 10, frozenset({ProcessKey(20, 20)}))] == [21]


def test_a_proc_of_another_namespace_is_not_relied_on(tmp_path):
    proc = FakeProc(tmp_path)
    proc.own(1)
    proc.add(os.getpid())
    tier = read_tier(proc)
    assert not tier.proc
    assert not tier.is_full
    assert "does not show this process" in tier.limits[0]


def test_a_kernel_without_lists_of_children_is_a_limit(tmp_path):
    proc = FakeProc(tmp_path)
    proc.own(os.getpid())
    proc.add(os.getpid())
    tier = read_tier(proc)
    assert (tier.proc, tier.children_files) == (True, False)
    assert "CONFIG_PROC_CHILDREN" in tier.limits[0]
